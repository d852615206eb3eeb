"""sign_message over scripted nodes: what is signed, what is refused before anything is sent, what is never returned."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data

import dan_async
from dan_async import DanClient
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import (
    ConfigurationError,
    EphemeralKeyRefusedError,
    InvalidFieldError,
    SessionExpiredError,
    SignatureCheckError,
)
from dan_async.jobs.sign_message import message_request
from dan_async.network import SigningOrder
from dan_async.protocols.sign_request import sign_request_digest
from dan_async.session import DanModuleInfo
from dan_async.user_operation import UserOperationV06
from tests.fake_signing import SigningNetwork

TYPED_DATA = {
    "types": {
        "EIP712Domain": [{"name": "name", "type": "string"}],
        "Order": [{"name": "amount", "type": "uint256"}, {"name": "note", "type": "bytes"}],
    },
    "domain": {"name": "é"},
    "primaryType": "Order",
    "message": {"amount": 2**200, "note": b"\x01\x02"},
}
OPERATION = UserOperationV06(
    sender="0x9c5754De1443984659E1b3a8d1931D83475ba29C",
    nonce=2**70,
    call_data=b"\xb6\x1d",
    call_gas_limit=1,
    verification_gas_limit=2,
    pre_verification_gas=3,
    max_fee_per_gas=4,
    max_priority_fee_per_gas=5,
)
REQUEST = {
    "userOperation": OPERATION.to_dict(),
    "entryPointVersion": "v0.6.0",
    "entryPointAddress": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789",
    "chainId": 80002,
}


@pytest.fixture
def net():
    return SigningNetwork(2, 3)


def client(net):
    return DanClient(net.network(), clock=lambda: net.now)


def recovered(digest, signature):
    return Account._recover_hash(digest, signature=signature)


# --- what is signed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", "hello", "0x1234", "Привет", b"", b"\xff\x00", bytearray(b"ab")])
async def test_text_and_bytes_are_signed_as_personal_messages(net, message):
    """Text is text, whatever it looks like; eth-account agrees about the signer."""
    async with client(net) as dan:
        signature = await dan.sign_message(message, net.session())
    raw = message.encode() if isinstance(message, str) else bytes(message)
    assert Account.recover_message(encode_defunct(raw), signature=signature) == net.address
    assert len(signature) == 132
    assert signature[-2:] in {"1b", "1c"}


@pytest.mark.parametrize("digest", [b"\xab" * 32, "0x" + "ab" * 32, "ab" * 32])
async def test_a_digest_is_signed_as_it_is(net, digest):
    """As bytes or hex."""
    async with client(net) as dan:
        signature = await dan.sign_message(digest, net.session(), request_type="rawBytes")
    assert recovered(b"\xab" * 32, signature) == net.address


@pytest.mark.parametrize("form", ["mapping", "text"])
async def test_typed_data_is_signed_by_eip_712(net, form):
    """With numbers beyond JSON's and bytes in it, where it is a mapping."""
    given = TYPED_DATA
    if form == "text":
        given = json.dumps({**TYPED_DATA, "message": {"amount": str(2**200), "note": "0x0102"}})
    async with client(net) as dan:
        signature = await dan.sign_message(
            given, net.session(), request_type="EIP712" if form == "text" else None
        )
    signable = encode_typed_data(full_message=TYPED_DATA)
    assert Account.recover_message(signable, signature=signature) == net.address


@pytest.mark.parametrize("form", ["mapping", "model in it", "text"])
async def test_a_user_operation_is_signed_by_its_hash(net, form):
    """In any of the forms in which it may be given."""
    given = {
        "mapping": REQUEST,
        "model in it": {**REQUEST, "userOperation": OPERATION},
        "text": json.dumps(REQUEST),
    }[form]
    async with client(net) as dan:
        signature = await dan.sign_message(
            given, net.session(), request_type="accountAbstractionTx" if form == "text" else None
        )
    digest = sign_request_digest(message_request(REQUEST))
    assert recovered(digest, signature) == net.address


async def test_the_function_of_the_module_does_the_same(net):
    """The shape of the TypeScript function: message, session, and the client besides."""
    async with client(net) as dan:
        signature = await dan_async.sign_message("hello", net.session().to_dict(), client=dan)
    assert Account.recover_message(encode_defunct(text="hello"), signature=signature) == net.address


async def test_the_function_of_the_module_wants_a_client(net):
    """Anything else is refused by name."""
    with pytest.raises(InvalidFieldError, match="client"):
        await dan_async.sign_message("hello", net.session(), client=net)


async def test_the_fields_of_the_seed_are_enough(net):
    """Seven, without the ephemeral key's name or algorithm."""
    seven = {
        "sessionKeyEOA": net.address,
        "mpcKeyId": net.session().mpc_key_id,
        "hexEphSKWithout0x": net.ephemeral.to_hex(),
        "partiesNumber": 3,
        "threshold": 2,
        "eoaAddress": "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf",
        "chainId": 80002,
    }
    async with client(net) as dan:
        signature = await dan.sign_message("hello", seven)
    assert Account.recover_message(encode_defunct(text="hello"), signature=signature) == net.address
    assert net.calls[0][2]["ephId"] == net.ephemeral.default_id


@pytest.mark.parametrize("name", ["derived", "public key"])
async def test_the_ephemeral_key_of_the_seven_fields_may_be_ed25519(net, name):
    """As sessions of gateways have it; in revision 0.1 the nodes know it by its public key."""
    net.ephemeral = EphemeralKey.generate("ed25519")
    net.eph_id = "" if name == "derived" else "0x" + net.ephemeral.public_key.hex()
    async with client(net) as dan:
        signature = await dan.sign_message("hello", net.session())
    assert Account.recover_message(encode_defunct(text="hello"), signature=signature) == net.address


@pytest.mark.parametrize(("algorithm", "names"), [("secp256k1", 1), ("ed25519", 2), (None, 3)])
async def test_an_unknown_ephemeral_key_is_refused_after_every_name_it_may_have(net, algorithm, names):
    """And no more: the first refusal is the one that is raised."""
    net.eph_id = "another"
    async with client(net) as dan:
        with pytest.raises(EphemeralKeyRefusedError):
            await dan.sign_message("hello", net.session(eph_alg=algorithm))
    assert len({params["ephId"] for _, _, params in net.calls}) == names


# --- what is refused before anything is sent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "options", "field"),
    [
        (5, {}, "message"),
        (None, {}, "message"),
        (["a"], {}, "message"),
        ("\ud800", {}, "message"),
        ("hello", {"request_type": "eddsa"}, "request_type"),
        ("hello", {"request_type": "eip191"}, "request_type"),
        ("hello", {"request_type": 5}, "request_type"),
        ({"a": 1}, {"request_type": "EIP191"}, "message"),
        (b"\xab" * 31, {"request_type": "rawBytes"}, "message"),
        ("0xzz", {"request_type": "rawBytes"}, "message"),
        (5, {"request_type": "rawBytes"}, "message"),
        ("{}", {"request_type": "EIP712"}, "message.types"),
        (b"{}", {"request_type": "EIP712"}, "message"),
        ("not JSON", {"request_type": "EIP712"}, "message"),
        ({**TYPED_DATA, "primaryType": "Other"}, {}, None),
        ({**TYPED_DATA, "message": {"amount": 1.5, "note": "0x"}}, {}, "message"),
        ({**TYPED_DATA, "message": {"amount": -1, "note": "0x"}}, {}, "message.amount"),
        ({1: 2}, {}, "message"),
        ({}, {}, "message.types"),
        (OPERATION, {}, "message"),
        ({**REQUEST, "chainId": 0}, {}, "chainId"),
        ({**REQUEST, "more": 0}, {}, "message"),
        ({**REQUEST, "userOperation": {}}, {}, None),
        ({**REQUEST, "entryPointVersion": "v0.8.0"}, {}, "entryPointVersion"),
        ({**REQUEST, "entryPointAddress": "0x12"}, {}, None),
        ("hello", {"timeout": 0}, "timeout"),
        ("hello", {"timeout": "5"}, "timeout"),
    ],
)
async def test_wrong_values_are_refused_and_nothing_is_sent(net, message, options, field):
    """By an error that is a ValueError too, and names the field."""
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError) as caught:
            await dan.sign_message(message, net.session(), **options)
    assert isinstance(caught.value, ConfigurationError | ValueError)
    assert caught.value.field == field or field is None
    assert not net.calls


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return {**TYPED_DATA, "message": {"amount": value, "note": "0x"}}


def test_a_message_that_is_nested_too_deeply_is_refused():
    """Before anything recurses into it for long."""
    with pytest.raises(InvalidFieldError, match="too deeply"):
        message_request(nested(100))


@pytest.mark.parametrize("value", [b"ab", bytearray(b""), 2**53 + 1, -(2**60)])
@pytest.mark.parametrize("where", ["message", "domain", "array"])
def test_bytes_and_numbers_are_no_text(value, where):
    """JSON carries both as text, and a member of type string would be signed as text that nobody wrote."""
    fields = [{"name": "note", "type": "string"}, {"name": "notes", "type": "string[]"}]
    data = {
        "types": {"Main": fields},
        "domain": {"name": value if where == "domain" else "x"},
        "primaryType": "Main",
        "message": {
            "note": value if where == "message" else "x",
            "notes": ["x", value if where == "array" else "x"],
        },
    }
    with pytest.raises(InvalidFieldError, match="must be text, not bytes or a number") as caught:
        message_request(data)
    assert (
        caught.value.field
        == {"message": "message.note", "domain": "domain.name", "array": "message.notes[1]"}[where]
    )


def test_a_number_beyond_every_type_is_refused():
    """Python would not even write it in decimal."""
    with pytest.raises(InvalidFieldError, match="more than 256 bits"):
        message_request({**TYPED_DATA, "message": {"amount": 10**5000, "note": "0x"}})


@pytest.mark.parametrize(("length", "is_beside"), [(100, False), (20_000, True)])
@pytest.mark.parametrize("kind", ["text", "bytes", "typed data"])
async def test_long_messages_are_hashed_beside_the_loop(net, monkeypatch, length, is_beside, kind):
    """Short ones on it, where a thread would cost more than it saves."""
    threads = []

    def digest(request):
        threads.append(threading.current_thread())
        return sign_request_digest(request)

    module = sys.modules[message_request.__module__]  # the package has a function of its name
    monkeypatch.setattr(module, "sign_request_digest", digest)
    typed_data = {
        **TYPED_DATA,
        "types": {"Main": [{"name": "values", "type": "uint8[]"}]},
        "domain": {},
        "primaryType": "Main",
        "message": {"values": [1] * length},
    }
    message = {"text": "x" * length, "bytes": bytes(length), "typed data": typed_data}[kind]
    async with client(net) as dan:
        await dan.sign_message(message, net.session())
    assert [thread is not threading.main_thread() for thread in threads] == [is_beside]


def test_an_order_has_a_digest_for_each_message():
    """And at least one message."""
    with pytest.raises(InvalidFieldError, match="requests"):
        SigningOrder(key_id="5e" * 32, address="0x", t=2, claim=None, owner_id=None, requests=(), digests=())


@pytest.mark.parametrize("number", [0, 2])
def test_an_order_takes_one_signature_for_each_message(net, number):
    """Neither fewer nor more."""
    request = message_request("hello")
    order = SigningOrder(
        key_id="5e" * 32,
        address=net.address,
        t=2,
        claim=None,
        owner_id=None,
        requests=(request,),
        digests=(sign_request_digest(request),),
    )
    with pytest.raises(SignatureCheckError):
        order.check((bytes(65),) * number)


@pytest.mark.parametrize("session", [None, 5, "text", {}, {"sessionKeyEOA": "0x12"}, object()])
async def test_what_is_no_session_is_refused(net, session):
    """And nothing is sent."""
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError):
            await dan.sign_message("hello", session)
    assert not net.calls


async def test_a_key_id_that_these_nodes_cannot_have_is_refused(net):
    """A gateway's may be any text, the nodes' are hashes."""
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError, match="keyId"):
            await dan.sign_message("hello", net.session(mpc_key_id="opaque"))
    assert not net.calls


@pytest.mark.parametrize(("ends", "is_refused"), [(-1, True), (0, True), (1, False)])
async def test_an_expired_session_sends_nothing(net, ends, is_refused):
    """It ends at its expiry, not after it."""
    session = net.session(expires_at=int(net.now) + ends)
    async with client(net) as dan:
        if is_refused:
            with pytest.raises(SessionExpiredError):
                await dan.sign_message("hello", session)
        else:
            await dan.sign_message("hello", session)
    assert bool(net.calls) is not is_refused


async def test_an_operation_for_another_chain_sends_nothing(net):
    """The session says which chain it is for."""
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError, match="chainId"):
            await dan.sign_message(REQUEST, net.session(chain_id=137))
        assert not net.calls
        await dan.sign_message(REQUEST, net.session(chain_id=80002))


ON_CHAIN = {
    **TYPED_DATA,
    "types": {**TYPED_DATA["types"], "EIP712Domain": [{"name": "chainId", "type": "uint256"}]},
}


def on_chain(chain):
    return {**ON_CHAIN, "domain": {"chainId": chain}}


@pytest.mark.parametrize(
    ("message", "session_chain", "named", "is_refused"),
    [
        (on_chain(137), 80002, None, True),
        (on_chain("0x89"), 80002, None, True),
        (on_chain(0), 80002, None, True),
        (on_chain(0), None, None, True),
        (on_chain(80002), 80002, None, False),
        (on_chain("0x13882"), 80002, None, False),
        (on_chain(137), None, None, False),
        (on_chain(137), 80002, 137, False),
        (on_chain(0), 80002, 0, False),
        (on_chain(80002), 80002, 137, True),
        (on_chain(0), 80002, 137, True),
        (TYPED_DATA, 80002, None, False),
        (REQUEST, 137, 80002, False),
        (REQUEST, 80002, 137, True),
        ("hello", 80002, 137, False),
    ],
)
async def test_the_chain_of_a_message_is_the_sessions_or_named(
    net, message, session_chain, named, is_refused
):
    """Typed data and user operations; 0, which is every chain, only by name."""
    async with client(net) as dan:
        call = dan.sign_message(message, net.session(chain_id=session_chain), chain_id=named)
        if is_refused:
            with pytest.raises(InvalidFieldError, match="Nothing was sent") as caught:
                await call
            assert caught.value.field == "chainId"
        else:
            await call
    assert bool(net.calls) is not is_refused


@pytest.mark.parametrize("named", [-1, "1", True, 2**256])
async def test_a_chain_is_named_by_its_number(net, named):
    """Anything else is refused by name."""
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError, match="chain_id"):
            await dan.sign_message("hello", net.session(), chain_id=named)
    assert not net.calls


OTHER = "0x" + "e7" * 20
V07 = "0x0000000071727De22E5E9d8BAf0edAc6f37da032"


@pytest.mark.parametrize(
    ("address", "named", "is_refused"),
    [
        (OTHER, None, True),
        (OTHER, V07, True),
        (OTHER, OTHER, False),
        (OTHER.upper().replace("0X", "0x"), OTHER, False),
        (V07, None, True),
        (V07, V07, True),
        (REQUEST["entryPointAddress"].lower(), None, False),
    ],
)
async def test_an_entry_point_is_well_known_or_named(net, address, named, is_refused):
    """And never the one of another version."""
    request = {**REQUEST, "entryPointAddress": address}
    async with client(net) as dan:
        if is_refused:
            with pytest.raises(InvalidFieldError) as caught:
                await dan.sign_message(request, net.session(), entry_point=named)
            assert caught.value.field == "entry_point"
        else:
            await dan.sign_message(request, net.session(), entry_point=named)
    assert bool(net.calls) is not is_refused


async def test_secrets_stay_out_of_errors(net):
    """Whatever is wrong with the session."""
    data = {**net.session().to_dict(), "hexEphSKWithout0x": net.ephemeral.to_hex() + "00"}
    async with client(net) as dan:
        with pytest.raises(InvalidFieldError) as caught:
            await dan.sign_message("hello", data)
    assert net.ephemeral.to_hex() not in str(caught.value)


async def test_the_address_of_a_session_may_be_in_lower_case(net):
    """As the TypeScript clients store it."""
    session = net.session().to_dict() | {"sessionKeyEOA": net.address.lower()}
    async with client(net) as dan:
        assert await dan.sign_message("hello", session)


async def test_the_session_may_be_a_module_info(net):
    """It is what every payload is."""
    assert isinstance(net.session(), DanModuleInfo)
    async with client(net) as dan:
        assert await dan.sign_message("hello", DanModuleInfo.from_dict(net.session().to_dict()))
