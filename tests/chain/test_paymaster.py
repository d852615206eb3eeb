"""Somebody else pays: the package's VerifyingPaymaster on the chain, behind a paymaster service of ERC-7677."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from dan_async import LocalWallet, Timeouts
from dan_async.crypto.abi import encode_arguments, encode_call
from dan_async.errors import PaymasterError, RpcError
from dan_async.transport.in_memory import InMemoryTransport
from dan_async.types import EntryPointVersion
from dan_async.user_operation import ENTRY_POINTS, UserOperationV06, UserOperationV07
from dan_async.userops import Call, SimpleAccount, create_smart_account_client
from tests.chain.local_chain import CHAIN_ID, ETHER, LocalChain

# Starting the bundler counts to the first test that needs it.
pytestmark = pytest.mark.timeout(150)

VERSIONS: list[EntryPointVersion] = ["v0.6.0", "v0.7.0"]
VALID_UNTIL, VALID_AFTER = 2**47, 0
WINDOW = encode_arguments("(uint48,uint48)", (VALID_UNTIL, VALID_AFTER))
GET_HASH = {
    "v0.6.0": "getHash((address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes),uint48,uint48)",
    "v0.7.0": "getHash((address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes),uint48,uint48)",
}


class VerifyingService:
    """A paymaster service: it signs for whatever its contract then pays for."""

    def __init__(self, chain: LocalChain, version: EntryPointVersion, *, refuses: bool = False) -> None:
        self._chain = chain
        self._version = version
        self._refuses = refuses
        self._key = LocalWallet(secrets.token_bytes(32))
        self.asked: list[str] = []
        self.address = chain.deploy(
            version,
            "VerifyingPaymaster",
            encode_arguments("(address,address)", (ENTRY_POINTS[version], self._key.address)),
        )
        data = encode_call("depositTo(address)", self.address)
        chain.transact(to=ENTRY_POINTS[version], data="0x" + data.hex(), value=hex(ETHER))

    async def __call__(self, method: str, params: Any) -> Any:
        """Answer as ERC-7677 says."""
        sent, entry_point, chain_id, context = params
        assert (entry_point, int(chain_id, 16)) == (ENTRY_POINTS[self._version], CHAIN_ID)
        assert context == {"policy": "generous"}
        self.asked.append(method)
        if self._refuses:
            raise RpcError(-32001, "rejected by policy")
        if method == "pm_getPaymasterStubData":  # a signature, though over nothing of use
            return self._fields(sent, bytes.fromhex((await self._key.sign_message(b"stub"))[2:]))
        return self._fields(sent, await self._sign(sent))

    def _fields(self, sent: dict[str, Any], signature: bytes) -> dict[str, Any]:
        data = WINDOW + signature
        if self._version == "v0.6.0":
            return {"paymasterAndData": self.address + data.hex()}
        gas = {"paymasterVerificationGasLimit": hex(100_000), "paymasterPostOpGasLimit": hex(30_000)}
        kept = {name: sent.get(name, value) for name, value in gas.items()}
        return {"paymaster": self.address, "paymasterData": "0x" + data.hex(), **kept}

    async def _sign(self, sent: dict[str, Any]) -> bytes:
        # The contract of v0.6 hashes offsets, too: everything has its final length.
        fields = {**sent, **self._fields(sent, bytes(65))}
        form: Any = (
            UserOperationV06.from_dict(fields)
            if self._version == "v0.6.0"
            else UserOperationV07.from_dict(fields).pack()
        )
        operation = tuple(getattr(form, name) for name in form.members)
        (digest,) = self._chain.call(
            self.address,
            GET_HASH[self._version],
            operation,
            VALID_UNTIL,
            VALID_AFTER,
            returns="(bytes32)",
        )
        return bytes.fromhex((await self._key.sign_message(digest))[2:])


async def account_of(
    chain: LocalChain, bundler_url: str, version: EntryPointVersion, service: VerifyingService
) -> Any:
    """A SimpleAccount of a new key, without any money."""
    return await create_smart_account_client(
        signer=LocalWallet(secrets.token_bytes(32)),
        bundler_url=bundler_url,
        rpc_url=chain.url,
        paymaster_url=InMemoryTransport(service),
        paymaster_context={"policy": "generous"},
        account=SimpleAccount(version, factory=chain.factories[version]),
        timeouts=Timeouts(total_s=60),
    )


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_account_without_money_is_paid_for(
    chain: LocalChain, bundler_url: str, version: EntryPointVersion
) -> None:
    """The paymaster's deposit pays for deployment and call; the account itself has nothing before and after."""
    service = VerifyingService(chain, version)
    async with await account_of(chain, bundler_url, version, service) as account:
        address = await account.get_address()
        receipt = await account.wait_for_receipt(await account.send_user_operation(Call(address)))
        (left,) = chain.call(
            ENTRY_POINTS[version], "balanceOf(address)", service.address, returns="(uint256)"
        )
    assert receipt.is_success
    assert service.asked == ["pm_getPaymasterStubData", "pm_getPaymasterData"]
    assert chain.has_code(address)
    assert chain.balance(address) == 0
    assert left == ETHER - receipt.actual_gas_cost


async def test_a_refusal_is_the_paymasters(chain: LocalChain, bundler_url: str) -> None:
    """When the service refuses, nothing is sent, and the error names it."""
    service = VerifyingService(chain, "v0.7.0", refuses=True)
    async with await account_of(chain, bundler_url, "v0.7.0", service) as account:
        with pytest.raises(PaymasterError, match="access is denied") as caught:
            await account.send_user_operation(Call(await account.get_address()))
        assert await account.get_nonce() == account.lanes.key() << 64
    assert caught.value.service == "paymaster"
