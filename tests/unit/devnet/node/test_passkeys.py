"""Registering passkeys at one node: what it verifies, what it keeps, and what it says again."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve

from dan_async._json import dump
from dan_async.devnet.context import NodeIdentity, Workers
from dan_async.devnet.node import passkeys as passkeys_module
from dan_async.devnet.node.changes import OwnerChanges
from dan_async.devnet.node.keys import KeyRing
from dan_async.devnet.node.passkeys import PasskeyRecord, PasskeyRegistry, check_assertion
from dan_async.devnet.node.requests import NonceStore
from dan_async.devnet.node.rpc import RefusalError
from dan_async.devnet.share_store import MemoryShareStore, ShareStoreError
from dan_async.errors import NodeCode, NodeProtocolError
from dan_async.protocols.fields import to_json
from dan_async.protocols.node import REGISTER_PASSKEY as OPERATION
from dan_async.protocols.node import (
    ChallengeParams,
    KeygenParams,
    PasskeyClaims,
    PasskeyReceipt,
    final_challenge,
    setup_hash,
)
from dan_async.protocols.setups import (
    PasskeySignature,
    UserAuthentication,
    decode_passkey_signature,
    encode_passkey_signature,
)
from dan_async.types import RequestId
from dan_async.wallets import PasskeyAuth, PasskeyRegister
from tests.fake_nodes import altered
from tests.helpers import error_of
from tests.passkeys.authenticator import ORIGIN, RP_ID, Authenticator, b64
from tests.unit.devnet.node_context import node_context

IDENTITY = NodeIdentity.from_hex("01" * 32)
REQUEST_ID = RequestId("0x" + "ab" * 32)
DIGEST = setup_hash(operation=OPERATION, revision="1", setup="{}")


class Bench:
    """A node's passkey service with all that belongs to it."""

    def __init__(self, workers: Workers, **options: Any) -> None:
        self.store = MemoryShareStore()
        self.registry = PasskeyRegistry(self.store, **options)
        context = node_context(identity=IDENTITY, workers=workers, store=self.store)
        ring = KeyRing(self.store)
        self.nonces = NonceStore(context, ring)
        self.service = OwnerChanges(
            context=context,
            ring=ring,
            nonces=self.nonces,
            passkeys=self.registry,
            on_revoked=lambda _key_id, _eph_id: None,
        )

    async def request(self, device: Authenticator, request_id: RequestId = REQUEST_ID) -> KeygenParams:
        """Make the request that registers a passkey, with a nonce of the node."""
        nonce = self.nonces.issue(
            ChallengeParams(request_id=request_id, operation=OPERATION, setup_hash=DIGEST)
        ).nonce
        challenge = final_challenge(
            operation=OPERATION,
            request_id=request_id,
            setup_digest=DIGEST,
            participants=[IDENTITY.operator],
            nonces=[nonce],
        )
        auth = PasskeyRegister("a", b"1", device.create, rp_id=RP_ID, rp_name="W", origin=ORIGIN)
        signature = await auth.authorise(challenge=challenge.hex(), typed_data={})
        return KeygenParams(
            request_id=request_id,
            revision="1",
            setup="{}",
            participants=(IDENTITY.operator,),
            nonces=(nonce,),
            user_authentication=UserAuthentication(
                method="passkey", id=auth.id, credentials="", signature=signature
            ),
        )

    async def code(self, params: KeygenParams) -> int:
        """Give the code with which it is refused."""
        error = await error_of(self.service.register(params))
        assert isinstance(error, RefusalError), error
        return error.code


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Workers() as workers:
        yield Bench(workers)


def with_authentication(params: KeygenParams, **changes: Any) -> KeygenParams:
    return evolve(params, user_authentication=evolve(params.user_authentication, **changes))


async def test_the_receipt_is_the_operators(bench: Bench) -> None:
    """Signed over request, operator and credential id; the wire carries it unchanged."""
    device = Authenticator()
    receipt = await bench.service.register(await bench.request(device))
    assert (receipt.claims.request_id, receipt.claims.credential_id) == (REQUEST_ID, device.id)
    assert receipt.signer(REQUEST_ID) == IDENTITY.operator
    assert PasskeyReceipt.read_whole(to_json(receipt)) == receipt
    for changed in (
        altered(receipt, request_id=RequestId("0x" + "cd" * 32)),
        altered(receipt, credential_id="other"),
        altered(receipt, party_index=2),
        altered(receipt, operator=NodeIdentity.from_hex("02" * 32).operator),
    ):
        assert changed.digest(changed.claims.request_id) != receipt.digest(REQUEST_ID)


async def test_it_is_stored_before_it_is_said(bench: Bench) -> None:
    """Another registry over the same store knows it, and the key ring leaves it alone."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    again = PasskeyRegistry(bench.store)
    again.load()
    KeyRing(bench.store).load()
    assert again.find(device.id) == bench.registry.find(device.id)
    assert len(again) == 1


async def test_repeating_the_request_gives_the_receipt_again(bench: Bench) -> None:
    """Though its nonce is spent."""
    params = await bench.request(Authenticator())
    assert await bench.service.register(params) == await bench.service.register(params)


async def test_another_request_for_the_same_passkey_is_refused(bench: Bench) -> None:
    """The first one stands."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    before = bench.registry.find(device.id)
    again = await bench.request(device, RequestId("0x" + "cd" * 32))
    assert await bench.code(again) == NodeCode.REQUEST_CONFLICT
    assert bench.registry.find(device.id) == before


async def test_a_passkey_is_registered_with_a_nonce(bench: Bench) -> None:
    """There is no one-shot form."""
    params = evolve(await bench.request(Authenticator()), nonces=())
    assert await bench.code(params) == NodeCode.UNSUPPORTED


async def test_a_nonce_of_another_request_is_refused(bench: Bench) -> None:
    """The nonce is bound to the request."""
    params = await bench.request(Authenticator())
    assert (
        await bench.code(evolve(params, request_id=RequestId("0x" + "cd" * 32)))
        == NodeCode.CHALLENGE_MISMATCH
    )


async def test_a_credential_for_another_challenge_is_refused(bench: Bench) -> None:
    """What was made for one request registers nothing in another."""
    device = Authenticator()
    first = await bench.request(device)
    other = await bench.request(device, RequestId("0x" + "cd" * 32))
    params = with_authentication(other, signature=first.user_authentication.signature)
    assert await bench.code(params) == NodeCode.WRONG_OWNER


@pytest.mark.parametrize("method", ["eoa", "ephemeral"])
async def test_only_a_passkey_registers(bench: Bench, method: str) -> None:
    """Nobody registers it for somebody."""
    params = with_authentication(await bench.request(Authenticator()), method=method)
    assert await bench.code(params) == NodeCode.UNSUPPORTED


@pytest.mark.parametrize("revision", ["0.1", "0.3"])
async def test_older_revisions_register_none(bench: Bench, revision: str) -> None:
    """The operation is revision 1's."""
    params = evolve(await bench.request(Authenticator()), revision=revision)
    assert await bench.code(params) == NodeCode.UNSUPPORTED


async def test_the_setup_must_be_one(bench: Bench) -> None:
    """Members that nobody knows are refused."""
    params = evolve(await bench.request(Authenticator()), setup='{"x":1}')
    assert await bench.code(params) == NodeCode.INVALID_PARAMS


async def test_a_passkey_vouches_for_nothing(bench: Bench) -> None:
    """Credentials are empty."""
    params = with_authentication(await bench.request(Authenticator()), credentials="{}")
    assert await bench.code(params) == NodeCode.INVALID_PARAMS


async def test_the_id_must_be_the_credentials(bench: Bench) -> None:
    """A passkey cannot take another's name."""
    params = with_authentication(await bench.request(Authenticator()), id=Authenticator().id)
    assert await bench.code(params) == NodeCode.WRONG_OWNER


@pytest.mark.parametrize("signature", ["x", "{}", '{"rawCredential":"[]","origin":"o","rpId":"r"}'])
async def test_a_malformed_signature(bench: Bench, signature: str) -> None:
    """INVALID_PARAMS, and the nonce is still good."""
    params = await bench.request(Authenticator())
    assert await bench.code(with_authentication(params, signature=signature)) == NodeCode.INVALID_PARAMS
    await bench.service.register(params)


@pytest.mark.parametrize("credential", ["{}", '{"id":1}', '{"id":"AAAA","rawId":"AAAA","response":{}}'])
async def test_a_malformed_credential(bench: Bench, credential: str) -> None:
    """Whatever the parsers beneath say, it does not verify."""
    signature = encode_passkey_signature(
        PasskeySignature(raw_credential=credential, origin=ORIGIN, rp_id=RP_ID)
    )
    params = with_authentication(await bench.request(Authenticator()), signature=signature)
    assert await bench.code(params) == NodeCode.WRONG_OWNER


async def test_a_short_id_is_refused() -> None:
    """WebAuthn asks for 16 bytes; the client would not even send it."""
    device = Authenticator()
    device.credential_id = b"0123456789abcde"
    short = await device.create({"challenge": b64(b"\xab" * 32)})
    signature = encode_passkey_signature(
        PasskeySignature(raw_credential=json.dumps(short), origin=ORIGIN, rp_id=RP_ID)
    )
    authentication = UserAuthentication(method="passkey", id=device.id, credentials="", signature=signature)
    with pytest.raises(RefusalError) as caught:
        passkeys_module.verify_registration(authentication, "ab" * 32)
    assert caught.value.code == NodeCode.INVALID_PARAMS


async def test_there_is_room_for_so_many() -> None:
    """Anyone may register, so there is a limit."""
    with Workers() as workers:
        bench = Bench(workers, most=1)
        await bench.service.register(await bench.request(Authenticator()))
        second = await bench.request(Authenticator(), RequestId("0x" + "cd" * 32))
        assert await bench.code(second) == NodeCode.UNSUPPORTED


async def test_without_the_extra_a_node_does_no_passkeys(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so, before anything else, and what to install."""
    params = await bench.request(Authenticator())
    monkeypatch.setitem(sys.modules, "webauthn", None)
    error = await error_of(bench.service.prepare(params))
    assert isinstance(error, RefusalError)
    assert error.code == NodeCode.UNSUPPORTED
    assert 'pip install "dan-async[passkeys]"' in str(error)
    await bench.service.prepare(with_authentication(params, method="eoa"))


# --- assertions -----------------------------------------------------------------------------------------------------------


async def assertion(device: Authenticator, challenge: str = "cd" * 32) -> UserAuthentication:
    auth = PasskeyAuth(device.id, device.get, rp_id=device.rp_id, origin=device.origin)
    signature = await auth.authorise(challenge=challenge, typed_data={})
    return UserAuthentication(method="passkey", id=device.id, credentials="", signature=signature)


async def test_an_assertion_is_counted(bench: Bench) -> None:
    """The counter is the authenticator's last, in memory at once and on disk when saved."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    device.sign_count = 41
    check_assertion(await assertion(device), "cd" * 32, bench.registry)
    bench.registry.save(device.id)
    again = PasskeyRegistry(bench.store)
    again.load()
    for registry in (bench.registry, again):
        record = registry.find(device.id)
        assert record is not None
        assert record.sign_count == 42


async def test_an_authenticator_that_does_not_count(bench: Bench) -> None:
    """Zero each time is allowed; after a number it is not."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    for _ in range(2):
        device.sign_count = -1
        check_assertion(await assertion(device), "cd" * 32, bench.registry)
    check_assertion(await assertion(device), "cd" * 32, bench.registry)
    device.sign_count = -1
    with pytest.raises(RefusalError) as caught:
        check_assertion(await assertion(device), "cd" * 32, bench.registry)
    assert caught.value.code == NodeCode.WRONG_OWNER


async def test_another_challenge_is_refused(bench: Bench) -> None:
    """An assertion is good for one challenge, and a refused one is not counted."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    with pytest.raises(RefusalError):
        check_assertion(await assertion(device), "ce" * 32, bench.registry)
    record = bench.registry.find(device.id)
    assert record is not None
    assert record.sign_count == 0


@pytest.mark.parametrize("member", ["origin", "rp_id"])
async def test_the_page_as_sent_must_be_the_registered_one(bench: Bench, member: str) -> None:
    """Even where the authenticator signed for the right one."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    made = await assertion(device)
    sent = evolve(decode_passkey_signature(made.signature), **{member: "elsewhere.example"})
    changed = evolve(made, signature=encode_passkey_signature(sent))
    with pytest.raises(RefusalError, match="another page"):
        check_assertion(changed, "cd" * 32, bench.registry)


async def test_an_assertion_under_another_name_is_refused(bench: Bench) -> None:
    """The id inside the assertion is the owner's."""
    device = Authenticator()
    await bench.service.register(await bench.request(device))
    made = await assertion(device)
    device.credential_id = b"x" * 32
    inside = decode_passkey_signature((await assertion(device)).signature)
    changed = evolve(made, signature=encode_passkey_signature(inside))
    with pytest.raises(RefusalError, match="another passkey's"):
        check_assertion(changed, "cd" * 32, bench.registry)


# --- records --------------------------------------------------------------------------------------------------------------

RECORD = PasskeyRecord(
    content=b"\x01" * 32,
    receipt=PasskeyReceipt.make(
        PasskeyClaims(request_id=REQUEST_ID, credential_id="AAAA"),
        operator=IDENTITY.operator,
        party_index=1,
        sign=lambda _: b"\x02" * 65,
    ),
    public_key=b"\x03" * 77,
    sign_count=2**32 - 1,
    rp_id=RP_ID,
    origin=ORIGIN,
)


def test_a_record_survives_its_bytes() -> None:
    """Written and read again."""
    assert PasskeyRecord.decode(RECORD.encode()) == RECORD


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", RECORD.encode().replace(b'"version":2', b'"version":3'), RECORD.encode()[:-1]],
)
def test_a_broken_record_is_an_error(data: bytes) -> None:
    """A node does not start without what it is known to hold."""
    with pytest.raises(ShareStoreError):
        PasskeyRecord.decode(data)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("claims", dump({"requestId": "0x", "credentialId": "AAAA"})),
        ("claims", dump({"requestId": REQUEST_ID, "credentialId": ""})),
        ("claims", ""),
        ("operator", "0x12"),
        ("partyIndex", 0),
        ("signature", "0x12"),
        ("more", 1),
    ],
)
def test_a_malformed_receipt_breaks_the_protocol(member: str, value: Any) -> None:
    """Every member is looked at."""
    with pytest.raises(NodeProtocolError):
        PasskeyReceipt.read_whole({**to_json(RECORD.receipt), member: value})
