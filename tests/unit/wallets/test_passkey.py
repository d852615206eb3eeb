"""PasskeyAuth and PasskeyRegister: what the page is asked, and what of its answer is let through."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

import pytest

from dan_async.errors import (
    InvalidFieldError,
    WalletError,
    WalletRefusedError,
    WalletSignatureError,
    WalletTimeoutError,
    WrongSignerError,
)
from dan_async.protocols.setups import decode_passkey_signature
from dan_async.wallets import PasskeyAuth, PasskeyRegister
from dan_async.wallets.passkey import check_relying_party, decode_base64url
from tests.helpers import error_of
from tests.passkeys.authenticator import ORIGIN, RP_ID, Authenticator, b64, unb64

CHALLENGE = "ab" * 32
PAGE = {"rp_id": RP_ID, "origin": ORIGIN}


def asks(device: Authenticator, get: Any = None, **options: Any) -> PasskeyAuth:
    return PasskeyAuth(device.id, get or device.get, **PAGE, **options)


def registers(create: Any, **options: Any) -> PasskeyRegister:
    return PasskeyRegister("alice", b"account 1", create, rp_name="Wallet", **PAGE, **options)


def authorise(auth: Any, challenge: str = CHALLENGE) -> Any:
    return auth.authorise(challenge=challenge, typed_data={})


async def test_the_options_of_an_assertion() -> None:
    """The challenge's bytes, this passkey only, the person verified; JSON all through."""
    device = Authenticator()
    await authorise(asks(device, timeout_s=2.5))
    (options,) = device.asked
    assert json.loads(json.dumps(options)) == {
        "challenge": b64(bytes.fromhex(CHALLENGE)),
        "rpId": RP_ID,
        "allowCredentials": [{"type": "public-key", "id": device.id}],
        "userVerification": "required",
        "timeout": 2500,
    }


async def test_the_options_of_a_registration() -> None:
    """The account and the relying party; passkeys the account has are excluded."""
    device, other = Authenticator(), Authenticator()
    auth = registers(device.create, exclude=(other.id,), display_name="Alice A.")
    await authorise(auth)
    (options,) = device.asked
    assert options["challenge"] == b64(bytes.fromhex(CHALLENGE))
    assert options["rp"] == {"id": RP_ID, "name": "Wallet"}
    assert options["user"] == {"id": b64(b"account 1"), "name": "alice", "displayName": "Alice A."}
    assert options["excludeCredentials"] == [{"type": "public-key", "id": other.id}]
    assert options["authenticatorSelection"]["userVerification"] == "required"
    assert {entry["alg"] for entry in options["pubKeyCredParams"]} == {-7, -8, -257}
    assert "timeout" not in options


async def test_the_signature_carries_the_credential_and_the_page() -> None:
    """What the nodes need to verify it."""
    device = Authenticator()
    found = decode_passkey_signature(await authorise(asks(device)))
    assert (found.origin, found.rp_id) == (ORIGIN, RP_ID)
    assert json.loads(found.raw_credential)["id"] == device.id


async def test_text_is_passed_on_as_it_is() -> None:
    """A page's own JSON text is not rewritten."""
    device, sent = Authenticator(), []

    async def get(options: dict[str, Any]) -> str:
        sent.append(json.dumps(await device.get(options), indent=1))
        return sent[0]

    assert decode_passkey_signature(await authorise(asks(device, get))).raw_credential == sent[0]


async def test_the_new_passkey_is_known_by_its_id() -> None:
    """The id is empty before."""
    device = Authenticator()
    auth = registers(device.create)
    assert (auth.id, auth.method, auth.interactive) == ("", "passkey", True)
    await authorise(auth)
    assert auth.id == device.id


def spoilt(path: str, value: Any) -> Any:
    """Make a callback whose credential is wrong in one place."""

    def wrap(device: Authenticator) -> Any:
        async def get(options: dict[str, Any]) -> Any:
            found = copy.deepcopy(await device.get(options))
            *parents, last = path.split(".")
            place = found
            for name in parents:
                place = place[name]
            place[last] = value
            return found

        return get

    return wrap


def client_data(**changes: Any) -> str:
    right = {"type": "webauthn.get", "challenge": b64(bytes.fromhex(CHALLENGE)), "origin": ORIGIN}
    return b64(json.dumps(right | changes).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "password"),
        ("id", "not base64url!"),
        ("id", b64(b"short")),
        ("rawId", b64(b"x" * 32)),
        ("response", "none"),
        ("response.signature", None),
        ("response.signature", "AB="),
        ("response.authenticatorData", 7),
        ("response.clientDataJSON", b64(b"\xff")),
        ("response.clientDataJSON", b64(b"[]")),
        ("response.clientDataJSON", client_data(type="webauthn.create")),
        ("response.clientDataJSON", client_data(challenge=b64(b"\x01" * 32))),
        ("response.clientDataJSON", client_data(origin="https://evil.example")),
        ("clientExtensionResults", 0.5),
        ("clientExtensionResults", b"bytes"),
        ("clientExtensionResults", "x" * 300_000),
    ],
)
async def test_a_wrong_credential_is_not_sent(path: str, value: Any) -> None:
    """Each thing that can be seen without cryptography."""
    device = Authenticator()
    error = await error_of(authorise(asks(device, spoilt(path, value)(device))))
    assert type(error) is WalletSignatureError


async def test_what_a_spoilt_credential_changes_is_what_counts() -> None:
    """The same with the right client data goes through."""
    device = Authenticator()
    await authorise(asks(device, spoilt("response.clientDataJSON", client_data())(device)))


@pytest.mark.parametrize("answer", ["", "{", "[]", '"text"', 7, b"{}", ["x"], "x" * 300_000])
async def test_an_answer_that_is_no_credential(answer: Any) -> None:
    """Neither an object nor the text of one."""

    async def get(_: dict[str, Any]) -> Any:
        return answer

    assert type(await error_of(authorise(asks(Authenticator(), get)))) is WalletSignatureError


async def test_a_registration_is_no_assertion() -> None:
    """The purpose is part of what is signed."""
    device = Authenticator()
    assert type(await error_of(authorise(asks(device, device.create)))) is WalletSignatureError
    assert type(await error_of(authorise(registers(device.get)))) is WalletSignatureError


async def test_another_passkey_is_refused() -> None:
    """The owner is the passkey that was named."""
    error = await error_of(authorise(asks(Authenticator(), Authenticator().get)))
    assert type(error) is WrongSignerError


@pytest.mark.parametrize("challenge", ["", "ab", "zz" * 32, "0x" + "ab" * 31])
async def test_nobody_is_asked_to_sign_another_challenge(challenge: str) -> None:
    """A challenge is 64 hex digits."""
    device = Authenticator()
    for auth in (asks(device), registers(device.create)):
        assert type(await error_of(authorise(auth, challenge))) is InvalidFieldError
    assert device.asked == []


async def test_refused() -> None:
    """None, or the error itself."""

    async def decline(_: dict[str, Any]) -> None:
        return None

    async def refuse(_: dict[str, Any]) -> None:
        raise WalletRefusedError("no")

    for callback in (decline, refuse):
        assert type(await error_of(authorise(asks(Authenticator(), callback)))) is WalletRefusedError


async def test_too_late() -> None:
    """The limit is named."""

    async def wait(_: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    error = await error_of(authorise(asks(Authenticator(), wait, timeout_s=0.01)))
    assert type(error) is WalletTimeoutError
    assert "0.01 s" in str(error)


async def test_a_callback_that_fails_tells_no_secrets() -> None:
    """The callback's exception is the cause; its text is not repeated."""

    async def fail(_: dict[str, Any]) -> None:
        raise RuntimeError("the session cookie")

    error = await error_of(authorise(asks(Authenticator(), fail)))
    assert type(error) is WalletError
    assert "cookie" not in str(error)
    assert isinstance(error.__cause__, RuntimeError)


@pytest.mark.parametrize(
    ("rp_id", "origin"),
    [
        ("wallet.example", "https://wallet.example"),
        ("wallet.example", "https://app.wallet.example:8443"),
        ("localhost", "http://localhost:8080"),
        ("localhost", "http://app.localhost"),
    ],
)
def test_pages_that_have_passkeys(rp_id: str, origin: str) -> None:
    """A page's own domain, or one above it."""
    assert check_relying_party(rp_id, origin) == (rp_id, origin)


@pytest.mark.parametrize(
    ("rp_id", "origin", "field"),
    [
        ("wallet.example", "https://notwallet.example", "rp_id"),
        ("app.wallet.example", "https://wallet.example", "rp_id"),
        ("Wallet.example", "https://wallet.example", "rp_id"),
        ("wallet.example:443", "https://wallet.example", "rp_id"),
        ("", "https://wallet.example", "rp_id"),
        ("wallet.example", "http://wallet.example", "origin"),
        ("wallet.example", "https://wallet.example/", "origin"),
        ("wallet.example", "https://wallet.example/page", "origin"),
        ("wallet.example", "https://wallet.example?x", "origin"),
        ("wallet.example", "https://me@wallet.example", "origin"),
        ("wallet.example", "https://Wallet.example", "origin"),
        ("wallet.example", "wallet.example", "origin"),
        ("localhost", "http://notlocalhost", "origin"),
        ("wallet.example", "https://[", "origin"),
        ("wallet.example", "https://wallet.example:x", "origin"),
        ("wallet.example", "https://", "origin"),
    ],
)
def test_pages_that_have_none(rp_id: str, origin: str, field: str) -> None:
    """The field is named."""
    with pytest.raises(InvalidFieldError) as caught:
        check_relying_party(rp_id, origin)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"user_id": b""}, "user_id"),
        ({"user_id": b"x" * 65}, "user_id"),
        ({"user_id": "text"}, "user_id"),
        ({"user_name": ""}, "user_name"),
        ({"rp_name": ""}, "rp_name"),
        ({"exclude": ("short",)}, "exclude"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"create_credential": None}, "callback"),
    ],
)
def test_wrong_registrations(options: dict[str, Any], field: str) -> None:
    """The field is named."""
    device = Authenticator()
    right = {
        "user_name": "alice",
        "user_id": b"1",
        "create_credential": device.create,
        "rp_name": "Wallet",
        **PAGE,
    }
    with pytest.raises(InvalidFieldError) as caught:
        PasskeyRegister(**(right | options))
    assert caught.value.field == field


@pytest.mark.parametrize("value", ["", "a", "AB=", "AB+/", "AB\n", "AAB", None, b"AAAA"])
def test_what_is_not_base64url(value: Any) -> None:
    """One form only: no padding, no other alphabet, no stray bits."""
    with pytest.raises(InvalidFieldError):
        decode_base64url("field", value)


def test_base64url() -> None:
    """All lengths."""
    for length in range(1, 9):
        assert decode_base64url("field", b64(bytes(range(length)))) == bytes(range(length))
    assert unb64("_-8") == decode_base64url("field", "_-8")


def test_repr() -> None:
    """Who and where."""
    device = Authenticator()
    assert device.id in repr(asks(device))
    assert RP_ID in repr(registers(device.create))
