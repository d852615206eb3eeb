"""A chain with Biconomy's contracts, in memory: they check signatures, proofs and policies as the real ones do."""

from __future__ import annotations

import secrets
from typing import Any

from dan_async import LocalWallet
from dan_async.crypto.abi import decode_arguments, encode_arguments, function_selector
from dan_async.crypto.hashes import keccak256
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.errors import DanError, PermissionDeniedError, RpcError
from dan_async.network import EphemeralKeyReport
from dan_async.permissions import decode_calls
from dan_async.protocols.sign_request import RequestType, SignRequest, sign_request_digest
from dan_async.session import DanModuleInfo, DanSessionKeyPayload
from dan_async.user_operation import Call, UserOperationV06
from dan_async.userops import BiconomyV2, SessionContracts, SessionLeaf, SmartAccountClient
from tests.unit.userops.services import CHAIN_ID, World, account_in

CONTRACTS = SessionContracts()
OWNER = LocalWallet(b"\x01" * 32)
KIND = BiconomyV2()
ACCOUNT = str(KIND.deployment(OWNER.address, 0).address)
NOW = 1_800_000_000.0

_SESSION = "(uint48,uint48,address,bytes,bytes32[],bytes)"


class BiconomyWorld(World):
    """One account of OWNER's, not deployed yet."""

    def __init__(self) -> None:
        super().__init__("v0.6.0")
        self.is_deployed = False
        self.root = bytes(32)
        self.modules: set[str] = set()
        self.now = NOW
        #: The calls that were made, but for those to the account's modules.
        self.made: list[Call] = []
        #: Every root that was set.
        self.roots: list[bytes] = []

    def clock(self) -> float:
        """The time on the chain."""
        return self.now

    async def node(self, method: str, params: Any) -> Any:
        if method != "eth_call":
            return await super().node(method, params)
        data = bytes.fromhex(params[0]["data"][2:])
        if data[:4] == function_selector("getSessionKeys(address)"):
            return "0x" + self.root.hex()
        if data[:4] == function_selector("isModuleEnabled(address)"):
            (module,) = decode_arguments("(address)", data[4:])
            return "0x" + encode_arguments("(bool)", (module in self.modules,)).hex()
        if data[:4] == function_selector("getNonce(address,uint192)"):
            return await super().node(method, params)
        return "0x" + encode_arguments("(address)", (ACCOUNT,)).hex()

    def _take(self, sent: Any) -> str:
        operation = UserOperationV06.from_dict(sent)
        try:
            self.validate(operation)
        except (AssertionError, DanError, ValueError) as error:
            raise RpcError(-32500, f"AA23 reverted: {error}") from error
        return super()._take(sent)

    def validate(self, operation: UserOperationV06) -> None:
        """What the account and its modules check."""
        assert operation.sender == ACCOUNT, "another account"
        assert self.is_deployed or operation.init_code, "AA20"
        module_signature, module = decode_arguments("(bytes,address)", operation.signature)
        digest = self.hash_of(operation)
        calls = decode_calls(operation.call_data)
        if module == KIND.module:
            assert recover_address(personal_message_digest(digest), module_signature) == OWNER.address
            return
        assert module in self.modules, "WrongValidationModule"
        if module == CONTRACTS.manager:
            *session, signature = decode_arguments(_SESSION, module_signature)
            (call,) = calls
            self._check(call, session, signature, digest)
            return
        manager, sessions, signature = decode_arguments(f"(address,{_SESSION}[],bytes)", module_signature)
        assert manager == CONTRACTS.manager
        for call, (*session, _) in zip(calls, sessions, strict=True):
            self._check(call, session, signature, digest)

    def _check(self, call: Call, session: Any, signature: bytes, digest: bytes) -> None:
        until, after, module, key_data, proof = session
        packed = until.to_bytes(6) + after.to_bytes(6) + bytes.fromhex(module[2:])
        node = keccak256(packed + key_data)
        for sibling in proof:
            node = keccak256(b"".join(sorted((node, sibling))))
        assert node == self.root, "SessionNotApproved"
        key = recover_address(personal_message_digest(digest), signature)
        leaf = SessionLeaf(
            valid_until=until,
            valid_after=after,
            module=module,
            session_key=key,
            key_data="0x" + key_data.hex(),
        )
        assert bytes.fromhex(key[2:]) in key_data[:32], "another session's key"
        try:
            leaf.check_call(call, CONTRACTS, now=self.now)
        except PermissionDeniedError as denied:
            raise AssertionError(denied.problem) from denied

    def execute(self, own: str) -> None:
        operation = self.operations[own]
        super().execute(own)
        for call in decode_calls(operation.call_data):
            if call.target == ACCOUNT:
                (module,) = decode_arguments("(address)", call.data[4:])
                assert module not in self.modules
                self.modules.add(module)
            elif call.target == CONTRACTS.manager:
                (self.root,) = decode_arguments("(bytes32)", call.data[4:])
                self.roots.append(self.root)
            else:
                self.made.append(call)


class FakeDan:
    """A network that holds each session key whole: it signs what it is asked to, and notes the texts."""

    def __init__(self) -> None:
        self.keys: dict[str, LocalWallet] = {}
        self.requests: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.revoked: list[str] = []
        self.failure: DanError | None = None

    async def generate_session_key(self, *_: Any, **parameters: Any) -> DanSessionKeyPayload:
        """Make a key."""
        self.requests.append(parameters)
        key, key_id = LocalWallet(secrets.token_bytes(32)), secrets.token_hex(32)
        self.keys[key_id] = key
        return DanSessionKeyPayload(
            session_key_eoa=key.address,
            mpc_key_id=key_id,
            hex_eph_sk_without_0x=secrets.token_hex(32),
            parties_number=5,
            threshold=3,
            eoa_address=OWNER.address,
            chain_id=CHAIN_ID,
            eph_alg="ed25519",
            expires_at=int(NOW) + parameters["duration"],
        )

    async def sign_message(self, message: Any, session: DanModuleInfo, **options: Any) -> Any:
        """Sign a user operation, as the nodes do."""
        assert options["request_type"] == "accountAbstractionTx"
        self.messages.append(message)
        request = SignRequest(request_type=RequestType.USER_OPERATION, message=message)
        return "0x" + self.keys[session.mpc_key_id].sign_digest(sign_request_digest(request)).hex()

    async def revoke_ephemeral_key(
        self, session: DanModuleInfo, *_: Any, **parameters: Any
    ) -> EphemeralKeyReport:
        """Revoke."""
        assert parameters["wallet"] is OWNER
        if self.failure is not None:
            raise self.failure
        self.revoked.append(session.mpc_key_id)
        return EphemeralKeyReport(request_id="0x" + "12" * 32)


async def owners_account(world: BiconomyWorld, **options: Any) -> SmartAccountClient:
    """The owner's client of the account."""
    return await account_in(world, **({"signer": OWNER, "account": KIND} | options))
