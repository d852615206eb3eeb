"""sign_user_operation and the signers: what is handed to the client, and what comes back."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from dan_async import DanModuleInfo, LocalWallet
from dan_async.errors import InvalidFieldError, PermissionDeniedError
from dan_async.user_operation import ENTRY_POINTS, UserOperationV06, UserOperationV07
from dan_async.userops import Call, SessionSigner, SimpleAccount, WalletSigner, sign_user_operation

A = "0xca7746cA393578aae76D6D4575064a4387dE7b98"
TARGET = "0x2B5AD5c4795c026514f8317c7a215E218DcCD6cF"
SECRET = "5ec7e7" * 10 + "abcd"
SEED: dict[str, Any] = {
    "sessionKeyEOA": A,
    "mpcKeyId": "ab" * 32,
    "hexEphSKWithout0x": SECRET,
    "partiesNumber": 3,
    "threshold": 2,
    "eoaAddress": A,
    "chainId": 80002,
}
GAS = dict.fromkeys(
    [
        "call_gas_limit",
        "verification_gas_limit",
        "pre_verification_gas",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
    ],
    1,
)
V06 = UserOperationV06(sender=A, nonce=1, call_data=b"c", **GAS)
V07 = UserOperationV07(sender=A, nonce=1, call_data=b"c", **GAS)
SIGNATURE = "0x" + "11" * 64 + "1b"


class Client:
    """Stands for DanClient: notes what it is asked."""

    def __init__(self, signature: str = SIGNATURE) -> None:
        self.signature = signature
        self.asked: list[Any] = []

    async def sign_message(self, message: Any, session: Any, **options: Any) -> str:
        """Give the signature."""
        self.asked.append((message, session, options))
        return self.signature


@pytest.mark.parametrize("operation", [V06, V07, V07.pack()], ids=["v0.6", "v0.7", "packed"])
async def test_the_operation_is_signed_whole(operation: Any) -> None:
    """The nodes get the operation itself, with its entry point and the session's chain; only the signature is new."""
    client = Client()
    signed = await sign_user_operation(operation, SEED, client=client, timeout=7)
    assert signed.signature.hex() == SIGNATURE[2:]
    assert signed.to_dict() | {"signature": "0x"} == operation.to_dict()
    ((message, session, options),) = client.asked
    assert message == {
        "userOperation": operation.to_dict(),
        "entryPointVersion": operation.version,
        "entryPointAddress": ENTRY_POINTS[operation.version],
        "chainId": 80002,
    }
    assert session == DanModuleInfo.from_dict(SEED)
    assert options == {"request_type": "accountAbstractionTx", "timeout": 7}


async def test_entry_point_and_chain_may_be_given() -> None:
    """Another entry point, and a chain for a session that does not say one."""
    client = Client()
    session = DanModuleInfo.from_dict({k: v for k, v in SEED.items() if k != "chainId"})
    await sign_user_operation(V07, session, client=client, entry_point=A, chain_id=5)
    message = client.asked[0][0]
    assert (message["entryPointAddress"], message["chainId"]) == (A, 5)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"user_op": V07.to_dict()}, "user_op"),
        ({"session": 7}, "session"),
        ({"session": {k: v for k, v in SEED.items() if k != "chainId"}}, "chain_id"),
        ({"chain_id": 0}, "chain_id"),
        ({"entry_point": "0x1"}, "entry_point"),
    ],
)
async def test_wrong_arguments_are_named_and_nothing_is_sent(arguments: dict[str, Any], field: str) -> None:
    """The client is not asked for what makes no sense."""
    client = Client()
    with pytest.raises(InvalidFieldError) as caught:
        await sign_user_operation(
            **({"user_op": V07, "session": SEED} | arguments),
            client=client,
        )
    assert caught.value.field == field
    assert client.asked == []


async def test_the_entry_point_of_another_version_is_refused_and_an_unknown_one_is_named() -> None:
    """A client that is asked to sign hears of an entry point that is not the well-known one."""
    client = Client()
    with pytest.raises(InvalidFieldError, match="a version other than") as caught:
        await sign_user_operation(V07, SEED, client=client, entry_point=ENTRY_POINTS["v0.6.0"])
    assert caught.value.field == "entry_point"
    assert client.asked == []
    await sign_user_operation(V07, SEED, client=client, entry_point=A)
    assert client.asked[0][2]["entry_point"] == A


async def test_a_session_signer_signs_and_has_a_lane_of_its_own() -> None:
    """Agents with different ephemeral keys of one session are different signers; the secret is not in what is shown."""
    client = Client()
    signer = SessionSigner(client, SEED)
    other = SessionSigner(client, SEED | {"hexEphSKWithout0x": "11" * 32})
    assert signer.lane_seed == SessionSigner(client, SEED).lane_seed
    assert signer.lane_seed != other.lane_seed
    assert signer.address == other.address == A
    assert SECRET not in repr(signer)
    assert SECRET.encode() not in signer.lane_seed
    signature = await signer.sign_user_operation(V07, entry_point=A, chain_id=80002)
    assert signature.hex() == SIGNATURE[2:]


async def test_a_wallet_must_give_a_signature() -> None:
    """What is no signature of 65 bytes does not go into an operation."""

    class Odd(LocalWallet):
        async def sign_message(self, message: bytes) -> str:
            return "0x1234"

    with pytest.raises(InvalidFieldError, match="signature"):
        await WalletSigner(Odd(b"\x01" * 32)).sign_user_operation(V07, entry_point=A, chain_id=1)


PERMISSIONS = {
    "validUntil": 100,
    "permissions": [{"type": "call", "to": TARGET, "valueLimit": 1}],
}


def operation(value: int) -> UserOperationV07:
    """An operation that sends so many wei."""
    return attrs.evolve(V07, call_data=SimpleAccount().encode_calls([Call(TARGET, value)]))


@pytest.mark.parametrize("form", [PERMISSIONS, json.dumps(PERMISSIONS)], ids=["object", "text"])
async def test_permissions_are_checked_before_anything_is_sent(form: Any) -> None:
    """What the nodes would not sign is refused at once, with the rule; what they would is sent."""
    client = Client()
    options: dict[str, Any] = {"client": client, "permissions": form}
    with pytest.raises(PermissionDeniedError) as caught:
        await sign_user_operation(operation(2), SEED, **options, clock=lambda: 100)
    assert caught.value.rule == "permissions[0].valueLimit"
    with pytest.raises(PermissionDeniedError) as caught:
        await sign_user_operation(operation(1), SEED, **options, clock=lambda: 101)
    assert caught.value.rule == "validUntil"
    assert client.asked == []
    assert (await sign_user_operation(operation(1), SEED, **options, clock=lambda: 100)).signature


async def test_a_session_signer_knows_its_permissions() -> None:
    """Permissions in a wrong form are refused when the signer is made; the others hold for each operation."""
    client = Client()
    with pytest.raises(InvalidFieldError, match=r"permissions\[0\]\.type"):
        SessionSigner(client, SEED, permissions=[{}])
    signer = SessionSigner(client, SEED, permissions=PERMISSIONS)
    with pytest.raises(PermissionDeniedError, match="validUntil"):
        await signer.sign_user_operation(operation(1), entry_point=A, chain_id=80002)
    assert client.asked == []
