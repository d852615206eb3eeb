"""A gateway that makes every wrong move at every step: the right error, within the time given, and nothing left behind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dan_async.config import Timeouts, TransportOptions
from dan_async.errors import (
    ChallengeError,
    ClientClosedError,
    DanError,
    DeadlineExceededError,
    GatewayError,
    ProtocolError,
    WalletRefusedError,
    WalletTimeoutError,
)
from dan_async.gateway import GatewayNetwork
from dan_async.transport.connecting import spki_pin
from tests.certificates import CertificateAuthority
from tests.gateway_server import (
    KEY_ID,
    ONCE,
    PUBLIC_KEY,
    CountingWallet,
    Script,
    Visit,
    at_challenge,
    at_result,
    at_wallet,
    challenge_frame,
    honest,
    keygen_request,
    new_challenge,
    operate,
    result_frame,
    run,
    scripted,
)
from tests.helpers import CuttableProxy, assert_runs_under, error_of, no_leaks, wait_until
from tests.servers import raw_server, read_head

REVISIONS = ["0.1", "0.3", "1"]
SHORT = Timeouts(attempt_s=0.2, connect_s=5.0)
PATIENT = Timeouts(attempt_s=10.0, connect_s=5.0)


# --- moves ------------------------------------------------------------------------------------------------------------


async def say_nothing(visit: Visit) -> None:
    await visit.gone()


async def close_normally(visit: Visit) -> None:
    await visit.leave(1000, "bye")


async def close_for_policy(visit: Visit) -> None:
    await visit.leave(1008, "not for you")


async def close_restarting(visit: Visit) -> None:
    await visit.leave(1012, "back soon")


async def close_without_a_code(visit: Visit) -> None:
    visit.raw(b"\x88\x00")
    await visit.gone()


async def cut(visit: Visit) -> None:
    visit.abort()


async def send_binary(visit: Visit) -> None:
    await visit.socket.send_bytes(bytes(64))
    await visit.gone()


async def send_10_mib(visit: Visit) -> None:
    await visit.send("a" * 10 * 1024 * 1024)
    await visit.gone()


async def send_half_a_json(visit: Visit) -> None:
    await visit.send('{"secp256k1":"ab')
    await visit.gone()


async def send_deep_json(visit: Visit) -> None:
    await visit.send("[" * 100_000)
    await visit.gone()


async def send_nothing_in_a_frame(visit: Visit) -> None:
    await visit.send("")
    await visit.gone()


async def flood_with_pings(visit: Visit) -> None:
    visit.raw(b"\x89\x00" * 20_000)
    await visit.gone()


async def flood_with_pongs(visit: Visit) -> None:
    while True:
        visit.raw(b"\x8a\x04abcd" * 100)
        await asyncio.sleep(0.001)


async def send_bad_utf8(visit: Visit) -> None:
    visit.raw(b"\x81\x02\xff\xfe")
    await visit.gone()


async def send_an_unknown_opcode(visit: Visit) -> None:
    visit.raw(b"\x83\x00")
    await visit.gone()


async def send_compressed(visit: Visit) -> None:
    visit.raw(b"\xc1\x01a")
    await visit.gone()


async def send_a_masked_frame_of_no_end(visit: Visit) -> None:
    visit.raw(b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff")
    await visit.gone()


async def trickle_a_frame(visit: Visit) -> None:
    visit.raw(b"\x81\x7e\xff\xff")
    while True:
        visit.raw(b"a")
        await asyncio.sleep(0.01)


async def trickle_fragments(visit: Visit) -> None:
    visit.raw(b"\x01\x01a")
    while True:
        visit.raw(b"\x00\x01a")
        await asyncio.sleep(0.01)


#: Move -> class, close code, part of the message, retryable where nothing was sent yet.
MOVES: dict[Script, tuple[type[DanError], int | None, str, bool]] = {
    say_nothing: (GatewayError, None, "sent no frame within 0.", True),
    trickle_a_frame: (GatewayError, None, "sent no frame within 0.", True),
    trickle_fragments: (GatewayError, None, "sent no frame within 0.", True),
    close_normally: (GatewayError, 1000, "with code 1000: bye", True),
    close_for_policy: (GatewayError, 1008, "with code 1008: not for you", False),
    close_restarting: (GatewayError, 1012, "with code 1012: back soon", True),
    close_without_a_code: (GatewayError, None, "without a code", True),
    cut: (GatewayError, None, "broke", True),
    send_binary: (ProtocolError, None, "a binary frame of 64 bytes", False),
    send_10_mib: (ProtocolError, None, "max_message_bytes", False),
    flood_with_pings: (ProtocolError, None, "flood", False),
    flood_with_pongs: (ProtocolError, None, "flood", False),
    send_bad_utf8: (ProtocolError, None, "not UTF-8", False),
    send_an_unknown_opcode: (ProtocolError, None, "WebSocket does not allow", False),
    send_compressed: (ProtocolError, None, "WebSocket does not allow", False),
    send_a_masked_frame_of_no_end: (ProtocolError, None, "max_message_bytes", False),
}

#: Frames that are text and nothing the protocol knows.
NONSENSE: list[Script] = [send_half_a_json, send_deep_json, send_nothing_in_a_frame]

EVERY_MOVE = pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
EVERY_NONSENSE = pytest.mark.parametrize("move", NONSENSE, ids=lambda move: move.__name__)
EVERY_REVISION = pytest.mark.parametrize("revision", REVISIONS)


async def failure(
    *scripts: Script, wallet: CountingWallet | None = None, within_s: float = 10.0, **options: Any
) -> DanError:
    """Run an operation that has to fail; give its error. Nothing may be left behind, on either side."""
    options = {"revision": "0.3"} | options
    async with no_leaks():
        async with scripted(*scripts) as gateway:
            async with assert_runs_under(within_s):
                error = await error_of(run(gateway, wallet=wallet, **options))
            await wait_until(lambda: all(visit.is_over for visit in gateway.visits))
    assert isinstance(error, DanError), error
    assert error.node == gateway.url(options.get("version", "v1"))
    return error


# --- instead of the challenge -----------------------------------------------------------------------------------------


@EVERY_REVISION
@EVERY_MOVE
async def test_instead_of_the_challenge(move: Script, revision: str) -> None:
    """The error says that the challenge was awaited; the wallet is not asked, and nothing is said to exist."""
    cls, code, said, retryable = MOVES[move]
    wallet = CountingWallet()
    timeouts = SHORT if "within 0." in said else PATIENT
    error = await failure(at_challenge(move), revision=revision, wallet=wallet, timeouts=timeouts)
    assert type(error) is cls
    assert error.phase == "challenge"
    assert said in error.message
    assert error.retryable is retryable
    assert getattr(error, "close_code", None) == code
    assert "may exist" not in str(error)
    assert wallet.asked == 0


@EVERY_REVISION
@EVERY_NONSENSE
async def test_nonsense_instead_of_the_challenge(move: Script, revision: str) -> None:
    """A frame that is no challenge of this revision is never shown to the wallet."""
    wallet = CountingWallet()
    error = await failure(at_challenge(move), revision=revision, wallet=wallet)
    assert type(error) is ChallengeError
    assert error.phase == "challenge"
    assert wallet.asked == 0


GOOD = "ab" * 32


@pytest.mark.parametrize(
    ("revision", "frame"),
    [
        ("0.3", "ab" * 31),
        ("0.3", "0x" + GOOD),
        ("0.3", GOOD + "\n"),
        ("0.3", "xy" * 32),
        ("0.3", f'{{"secp256k1":"{GOOD}"}}'),
        ("0.3", '{"types":{},"domain":{},"primaryType":"Permit","message":{}}'),
        ("1", GOOD),
        ("1", "{}"),
        ("1", f'{{"ed25519":"{GOOD}"}}'),
        ("1", f'{{"secp256k1":"{GOOD}","ed25519":"{"cd" * 32}"}}'),
        ("1", f'{{"secp256k1":"{GOOD}","secp256k1":"{"cd" * 32}"}}'),
        ("1", '{"secp256k1":17}'),
        ("1", f'["{GOOD}"]'),
    ],
)
async def test_challenges_of_another_form(revision: str, frame: str) -> None:
    """Short, prefixed, not hex, of another revision, for other or more algorithms: none reaches the wallet."""

    async def move(visit: Visit) -> None:
        await visit.send(frame)
        await visit.gone()

    wallet = CountingWallet()
    error = await failure(at_challenge(move), revision=revision, wallet=wallet)
    assert type(error) is ChallengeError
    assert wallet.asked == 0


async def test_a_gateway_that_does_not_read() -> None:
    """A setup that the gateway leaves unread does not hold the call for longer than an attempt."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade_by_hand(reader, writer)
        writer.transport.pause_reading()
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(deaf) as port, assert_runs_under(10):
        network = GatewayNetwork(f"ws://127.0.0.1:{port}/v1", revision="0.3", timeouts=SHORT, retry=ONCE)
        request = keygen_request(permissions='"' + "p" * 65_000 + '"')
        error = await error_of(operate(network, request=request))
        await network.aclose()
    assert type(error) is GatewayError
    assert error.phase == "challenge"
    assert error.retryable


async def upgrade_by_hand(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Make a WebSocket of a plain connection."""
    head = await read_head(reader)
    (key,) = (
        line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def test_a_gateway_that_closes_before_it_is_asked() -> None:
    """Its code and reason are told, even where the setup could no longer be sent."""

    async def script(visit: Visit) -> None:
        await visit.leave(1013, "too many clients")

    error = await failure(script)
    assert type(error) is GatewayError
    assert error.phase in ("setup", "challenge")
    assert (error.close_code, error.close_reason) == (1013, "too many clients")
    assert error.retryable


# --- while the wallet is asked ----------------------------------------------------------------------------------------


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    "move", [move for move in MOVES if "within 0." not in MOVES[move][2]], ids=lambda move: move.__name__
)
async def test_while_the_wallet_is_asked(move: Script) -> None:
    """The prompt is taken back at once, and the error says that nothing was sent."""
    cls, code, said, retryable = MOVES[move]
    wallet = CountingWallet(interactive=True, before=forever, timeout_s=30)

    async def once_asked(visit: Visit) -> None:
        await wallet.is_asked.wait()
        await move(visit)

    error = await failure(at_wallet(once_asked), wallet=wallet)
    assert type(error) is cls
    assert error.phase == "wallet"
    assert said in error.message
    assert getattr(error, "close_code", None) == code
    assert error.retryable is retryable
    assert wallet.asked == 1
    assert wallet.was_cancelled
    assert "may exist" not in str(error)


@pytest.mark.parametrize("interactive", [False, True])
@pytest.mark.parametrize("signs_at_once", [False, True])
@pytest.mark.parametrize("what", ["second challenge", "the same challenge", "result"])
@pytest.mark.parametrize("revision", ["0.3", "1"])
async def test_a_frame_before_its_turn(
    what: str, revision: str, *, signs_at_once: bool, interactive: bool
) -> None:
    """A second challenge, or a result that nobody has authorised: refused, nothing signed for it, nothing sent."""
    answers: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.receive()
        first = challenge_frame(visit)
        result = f"keyId={KEY_ID}:publicKey={PUBLIC_KEY.hex()}" + (":signAlg=secp256k1" * (revision == "1"))
        await visit.send(first)
        await visit.send(
            {"second challenge": challenge_frame(visit), "the same challenge": first, "result": result}[what]
        )
        answers.append(await visit.receive())

    wallet = CountingWallet(interactive=interactive, before=None if signs_at_once else forever)
    error = await failure(script, revision=revision, wallet=wallet)
    assert type(error) is ProtocolError
    assert error.phase == "wallet"
    assert "before its turn" in error.message
    assert not error.retryable
    assert wallet.asked == 0
    assert answers == []


async def test_a_frame_that_comes_while_the_wallet_signs() -> None:
    """It came after the wallet was asked: the signature is not sent, and the wallet not asked again."""
    wallet = CountingWallet(before=lambda: asyncio.sleep(0.05))
    answers: list[str] = []

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await wallet.is_asked.wait()
        await visit.send(new_challenge())
        answers.append(await visit.receive())

    error = await failure(script, wallet=wallet)
    assert type(error) is ProtocolError
    assert wallet.asked == 1
    assert wallet.was_cancelled
    assert answers == []


@pytest.mark.parametrize(
    ("what", "said"), [(b"\x81\x02hi", "before its turn"), (b"\x88\x00", "without a code")]
)
async def test_what_came_while_the_wallet_held_the_loop(what: bytes, said: str) -> None:
    """A wallet that signs in one go: what the gateway sent meanwhile is noticed before the signature leaves."""
    async with no_leaks(), scripted(at_wallet(say_nothing)) as gateway:

        async def speak() -> None:
            gateway.visits[0].raw(what)
            time.sleep(0.002)

        wallet = CountingWallet(before=speak)
        error = await error_of(run(gateway, revision="0.3", wallet=wallet))
        await wait_until(lambda: gateway.visits[0].is_over)
        assert len(gateway.visits[0].frames) == 1
    assert isinstance(error, ProtocolError | GatewayError)
    assert error.phase == "wallet"
    assert said in error.message
    assert wallet.asked == 1


async def test_a_wallet_that_refuses_ends_the_exchange() -> None:
    """Its own error, and the connection is closed."""

    async def refuse() -> None:
        raise WalletRefusedError("the owner declined")

    wallet = CountingWallet(interactive=True, before=refuse)
    async with no_leaks(), scripted(honest) as gateway:
        error = await error_of(run(gateway, wallet=wallet, revision="0.3"))
        await wait_until(lambda: gateway.visits[0].is_over)
        assert len(gateway.visits[0].frames) == 1
    assert type(error) is WalletRefusedError
    assert error.phase == "wallet"


async def test_a_wallet_that_takes_too_long_ends_the_exchange() -> None:
    """The wallet's own limit counts."""
    wallet = CountingWallet(interactive=True, before=forever, timeout_s=0.1)
    async with no_leaks(), scripted(honest) as gateway, assert_runs_under(10):
        error = await error_of(run(gateway, wallet=wallet, revision="0.3"))
    assert type(error) is WalletTimeoutError


async def test_a_wallet_that_no_person_looks_at_is_under_the_deadline() -> None:
    """A program that does not sign in time costs the deadline, not for ever."""
    wallet = CountingWallet(before=forever, timeout_s=None)
    async with no_leaks(), scripted(honest) as gateway, assert_runs_under(10):
        error = await error_of(run(gateway, wallet=wallet, revision="0.3", total_s=0.2))
    assert type(error) is DeadlineExceededError
    assert error.phase == "wallet"
    assert wallet.was_cancelled


async def test_the_deadline_stands_still_for_a_person() -> None:
    """Someone who reads for longer than the whole deadline still gets a key."""
    wallet = CountingWallet(interactive=True, before=lambda: asyncio.sleep(0.4))
    async with no_leaks(), scripted(honest) as gateway:
        report = await run(gateway, wallet=wallet, revision="0.3", total_s=0.3)
    assert report.key_id == KEY_ID


async def test_a_silent_gateway_is_noticed_while_the_wallet_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that died behind a person's back is given up after two pings."""
    monkeypatch.setattr("dan_async.gateway.operation.PING_EVERY_S", 0.05)
    wallet = CountingWallet(interactive=True, before=forever, timeout_s=30)
    async with no_leaks(), scripted(at_wallet(say_nothing)) as gateway, CuttableProxy(gateway.port) as proxy:
        port, gateway.port = gateway.port, proxy.port

        async def stall() -> None:
            await wallet.is_asked.wait()
            proxy.stall()

        stalling = asyncio.create_task(stall())
        async with assert_runs_under(10):
            error = await error_of(run(gateway, wallet=wallet, revision="0.3"))
        await stalling
        gateway.port = port
    assert type(error) is GatewayError
    assert error.phase == "wallet"
    assert "stopped answering pings" in error.message


async def test_a_gateway_that_answers_pings_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost however long the person takes."""
    monkeypatch.setattr("dan_async.gateway.operation.PING_EVERY_S", 0.03)
    wallet = CountingWallet(interactive=True, before=lambda: asyncio.sleep(0.3))
    async with no_leaks(), scripted(honest) as gateway:
        assert (await run(gateway, wallet=wallet, revision="0.3")).key_id == KEY_ID


# --- instead of the result --------------------------------------------------------------------------------------------


@EVERY_REVISION
@EVERY_MOVE
async def test_instead_of_the_result(move: Script, revision: str) -> None:
    """The error says that the key may exist and is never worth an automatic repetition."""
    cls, code, said, _ = MOVES[move]
    is_wait = "within 0." in said
    wallet = CountingWallet()
    error = await failure(at_result(move), revision=revision, wallet=wallet, total_s=0.4 if is_wait else 10.0)
    assert type(error) is (DeadlineExceededError if is_wait else cls)
    assert error.phase == "result"
    assert is_wait or said in error.message
    assert getattr(error, "close_code", None) == code
    assert error.retryable is False
    assert "key may exist" in str(error)
    assert wallet.asked == 1


@EVERY_REVISION
@EVERY_NONSENSE
async def test_nonsense_instead_of_the_result(move: Script, revision: str) -> None:
    """What does not parse is a protocol error that shows a short piece of it."""
    error = await failure(at_result(move), revision=revision)
    assert type(error) is ProtocolError
    assert error.phase == "result"
    assert len(error.message) < 300
    assert "key may exist" in str(error)


KEY = f"keyId={KEY_ID}:publicKey={PUBLIC_KEY.hex()}"
OTHER = f"keyId={'18' * 32}:publicKey={'02' + '11' * 32}"


@pytest.mark.parametrize(
    ("revision", "frame"),
    [
        ("0.3", f"keyId={KEY_ID}"),
        ("0.3", f"publicKey={PUBLIC_KEY.hex()}"),
        ("0.3", f"{KEY}:t=1:n=1"),
        ("0.3", f"{KEY}:signAlg=secp256k1"),
        ("0.3", f"{KEY};{OTHER}"),
        ("0.3", f"publicKey={PUBLIC_KEY.hex()}:keyId={KEY_ID}"),
        ("0.3", f"{KEY}:keyId=1"),
        ("0.3", f"{KEY}\n"),
        ("0.3", f"keyId=:publicKey={PUBLIC_KEY.hex()}"),
        ("0.3", f"keyId={'k' * 257}:publicKey={PUBLIC_KEY.hex()}"),
        ("0.3", f"keyId={KEY_ID}:publicKey=02{'ff' * 32}"),
        ("0.3", f"keyId={KEY_ID}:publicKey={'00' * 33}"),
        ("0.3", f"keyId={KEY_ID}:publicKey={PUBLIC_KEY.hex()[:-2]}"),
        ("0.3", '{"keyId":"1","publicKey":"2"}'),
        ("0.3", "ok"),
        ("0.3", GOOD),
        ("1", KEY),
        ("1", f"{KEY}:signAlg=ed25519"),
        ("1", f"{KEY}:signAlg=rsa"),
        ("1", f"{KEY}:signAlg=secp256k1;keyId=9:publicKey={'11' * 32}:signAlg=ed25519"),
        ("1", f"{KEY}:signAlg=secp256k1;{KEY}:signAlg=secp256k1"),
        ("1", f"{KEY}:signAlg=secp256k1;"),
        ("1", f"{KEY}:signAlg=secp256k1:t=1"),
    ],
)
async def test_results_of_another_form(revision: str, frame: str) -> None:
    """A field too few or too many, other keys than asked, a point off the curve: no key is returned."""

    async def move(visit: Visit) -> None:
        await visit.send(frame)
        await visit.gone()

    error = await failure(at_result(move), revision=revision)
    assert type(error) is ProtocolError
    assert error.phase == "result"
    assert error.retryable is False
    assert "key may exist" in error.hint


@pytest.mark.parametrize("second", ["text", "binary", "10 MiB", "pings"])
@pytest.mark.parametrize(("revision", "version"), [("0.3", "v1"), ("1", "v1"), ("1", "v2")])
async def test_something_after_the_result(second: str, revision: str, version: str) -> None:
    """A gateway that goes on talking after its one result is not believed."""

    async def move(visit: Visit) -> None:
        await visit.send(result_frame(visit))
        if second == "text":
            await visit.send(result_frame(visit))
        elif second == "binary":
            await visit.socket.send_bytes(b"more")
        elif second == "10 MiB":
            await visit.send("a" * 10 * 1024 * 1024)
        else:
            visit.raw(b"\x89\x00" * 2000)
        await visit.gone()

    error = await failure(at_result(move), revision=revision, version=version)
    assert type(error) is ProtocolError
    assert error.phase == "result"
    assert "key may exist" in error.hint


async def test_a_gateway_that_does_not_say_goodbye() -> None:
    """A good result is a result; closing does not wait for long."""

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit))
        await visit.receive()
        await visit.send(KEY)
        await asyncio.sleep(30)  # never reads, so never answers the close frame

    async with no_leaks():
        async with scripted(script) as gateway, assert_runs_under(10):
            report = await run(gateway, revision="0.3")
    assert report.key_id == KEY_ID


async def test_the_authentication_cannot_be_sent() -> None:
    """A connection that breaks just then: it may or may not have arrived, so the key may exist."""
    error = await failure(at_result(cut))
    assert type(error) is GatewayError
    assert error.phase in ("authentication", "result")
    assert error.retryable is False
    assert "key may exist" in error.hint


@pytest.mark.parametrize(
    ("operation", "said"),
    [("addEphemeralKey", "may have been added"), ("revokeEphemeralKey", "revoke it again")],
)
@pytest.mark.parametrize("frame", ["", "OK", "ok;", "error", "half"])
async def test_changes_that_are_not_confirmed(operation: str, said: str, frame: str) -> None:
    """Only the word ok is a confirmation; the hint says what may have happened."""

    async def move(visit: Visit) -> None:
        await visit.send(frame)
        await visit.gone()

    error = await failure(at_result(move), revision="1", operation=operation)
    assert type(error) is ProtocolError
    assert said in error.hint


# --- the upgrade ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "retryable", "retry_after"),
    [
        (200, {}, False, None),
        (401, {"WWW-Authenticate": "Bearer"}, False, None),
        (403, {}, False, None),
        (404, {}, False, None),
        (429, {"Retry-After": "7"}, True, 7.0),
        (500, {}, True, None),
        (502, {}, True, None),
        (503, {"Retry-After": "1"}, True, 1.0),
        (302, {"Location": "/v1/elsewhere"}, False, None),
        (307, {"Location": "https://elsewhere.invalid/v1/keygen"}, False, None),
    ],
)
async def test_an_upgrade_that_is_refused(
    status: int, headers: dict[str, str], *, retryable: bool, retry_after: float | None
) -> None:
    """Status and Retry-After are in the error; the wallet is not asked, and a redirect is not followed."""
    wallet = CountingWallet()
    async with no_leaks():
        async with scripted(
            honest, upgrade=lambda _: web.Response(status=status, headers=headers, text="secret page")
        ) as gateway:
            error = await error_of(run(gateway, wallet=wallet, revision="0.3"))
            assert len(gateway.requests) == 1
    assert type(error) is GatewayError
    assert error.phase == "connect"
    assert error.status == status
    assert error.retry_after == retry_after
    assert error.retryable is retryable
    assert str(status) in error.message
    assert "secret page" not in str(error)
    assert wallet.asked == 0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\x00\x01\x02\x03" * 100 + b"\r\n\r\n",
        b"",
    ],
    ids=["wrong accept", "no headers", "another protocol", "garbage", "nothing"],
)
async def test_an_upgrade_that_is_none(answer: bytes) -> None:
    """Servers of other kinds are told apart from a gateway before anything is sent."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer)
        await writer.drain()

    async with no_leaks(), raw_server(server) as port, assert_runs_under(10):
        network = GatewayNetwork(f"ws://127.0.0.1:{port}/v1", revision="0.3", retry=ONCE)
        error = await error_of(operate(network))
        await network.aclose()
    assert type(error) is GatewayError
    assert error.phase == "connect"


@pytest.mark.parametrize("what", ["silence", "endless headers"])
async def test_an_upgrade_that_takes_for_ever(what: str) -> None:
    """The time to connect bounds it."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        if what == "endless headers":
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
            for number in range(10_000):
                writer.write(b"X-%d: 1\r\n" % number)
                await asyncio.sleep(0.01)
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(server) as port, assert_runs_under(10):
        network = GatewayNetwork(
            f"ws://127.0.0.1:{port}/v1", revision="0.3", retry=ONCE, timeouts=Timeouts(connect_s=0.2)
        )
        error = await error_of(operate(network))
        await network.aclose()
    assert type(error) is GatewayError
    assert error.phase == "connect"
    assert error.retryable
    assert "0.2 s" in error.message


async def test_nobody_listens() -> None:
    """The system's reason is told."""
    network = GatewayNetwork("ws://127.0.0.1:9/v1", revision="0.3", retry=ONCE)
    async with no_leaks():
        error = await error_of(operate(network))
        await network.aclose()
    assert type(error) is GatewayError
    assert (error.phase, error.retryable) == ("connect", True)
    assert "no connection" in error.message


async def test_the_deadline_counts_while_connecting() -> None:
    """A job with little time left does not use the whole time to connect."""

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with no_leaks(), raw_server(server) as port, assert_runs_under(10):
        network = GatewayNetwork(f"ws://127.0.0.1:{port}/v1", revision="0.3")
        error = await error_of(operate(network, total_s=0.2))
        await network.aclose()
    assert type(error) is DeadlineExceededError
    assert error.phase == "connect"
    assert "may exist" not in str(error)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    """A private CA."""
    return CertificateAuthority()


async def tls_failure(
    authority: CertificateAuthority, server: ssl.SSLContext, host: str = "127.0.0.1", **options: Any
) -> GatewayError:
    """Give the error of a keygen over TLS that has to be refused before a byte of HTTP."""
    options.setdefault("ssl_context", authority.client_context())
    async with no_leaks():
        async with scripted(honest, tls=server) as gateway, assert_runs_under(10):
            network = GatewayNetwork(
                gateway.url().replace("127.0.0.1", host),
                revision="0.3",
                retry=ONCE,
                options=TransportOptions(headers={"X-Api-Key": "abcdefgh"}, **options),
            )
            error = await error_of(operate(network))
            await network.aclose()
            assert gateway.requests == []
    assert type(error) is GatewayError
    assert error.phase == "connect"
    assert error.status is None
    return error


async def test_certificate_of_another_authority(authority: CertificateAuthority, tmp_path: Path) -> None:
    """A CA that is not trusted."""
    error = await tls_failure(authority, CertificateAuthority().issue().server_context(tmp_path))
    assert "certificate" in error.message
    assert not error.retryable


async def test_certificate_that_has_expired(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The date counts."""
    error = await tls_failure(authority, authority.issue(days=-1).server_context(tmp_path))
    assert "expired" in error.message
    assert not error.retryable


async def test_certificate_for_another_host(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The name counts."""
    server = authority.issue(host="other.example").server_context(tmp_path)
    error = await tls_failure(authority, server, host="localhost")
    assert "certificate" in error.message
    assert not error.retryable


async def test_key_that_is_not_pinned(authority: CertificateAuthority, tmp_path: Path) -> None:
    """A good certificate with another key than the pinned one."""
    error = await tls_failure(authority, authority.issue().server_context(tmp_path), pins=(bytes(32),))
    assert "pinned" in error.message
    assert not error.retryable


async def test_old_tls(authority: CertificateAuthority, tmp_path: Path) -> None:
    """TLS 1.1 is refused."""
    server = authority.issue().server_context(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.maximum_version = ssl.TLSVersion.TLSv1_1
    await tls_failure(authority, server)


async def test_pinned_key_over_tls(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The backup pin suffices, and every operation is made over the same settings."""
    certificate = authority.issue()
    async with no_leaks():
        async with scripted(honest, tls=certificate.server_context(tmp_path)) as gateway:
            network = GatewayNetwork(
                gateway.url(),
                revision="0.3",
                options=TransportOptions(
                    ssl_context=authority.client_context(), pins=(bytes(32), spki_pin(certificate.der))
                ),
            )
            for _ in range(2):
                assert (await operate(network)).key_id == KEY_ID
            await network.aclose()


async def test_plain_text_behind_wss(authority: CertificateAuthority) -> None:
    """A server without TLS where TLS is expected."""
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(f"wss://127.0.0.1:{gateway.port}/v1", revision="0.3", retry=ONCE)
        error = await error_of(operate(network))
        await network.aclose()
        assert gateway.requests == []
    assert type(error) is GatewayError
    assert error.phase == "connect"


# --- closing under way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["connect", "challenge", "wallet", "result"])
async def test_closing_the_network_ends_what_is_under_way(step: str) -> None:
    """Every operation fails with ClientClosedError at once, wherever it was."""
    wallet = CountingWallet(interactive=True, before=forever if step == "wallet" else None)
    script = {"challenge": at_challenge, "wallet": at_wallet, "result": at_result}.get(step, at_challenge)(
        say_nothing
    )
    async with no_leaks(), scripted(script) as gateway, assert_runs_under(10):
        if step == "connect":

            async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await asyncio.Event().wait()

            server = raw_server(deaf)
            url = f"ws://127.0.0.1:{await server.__aenter__()}/v1"
        else:
            url = gateway.url()
        network = GatewayNetwork(url, revision="0.3")
        calls = [asyncio.create_task(operate(network, wallet=wallet)) for _ in range(3)]
        frames = {"connect": 0, "challenge": 3, "wallet": 3, "result": 6}[step]
        await wait_until(lambda: sum(len(visit.frames) for visit in gateway.visits) == frames)
        await asyncio.sleep(0.02)
        await network.aclose()
        errors = [await error_of(call) for call in calls]
        if step == "connect":
            await server.__aexit__(None, None, None)
        assert [type(error) for error in errors] == [ClientClosedError] * 3
        assert all(("key may exist" in str(error)) == (step == "result") for error in errors)
        assert type(await error_of(operate(network))) is ClientClosedError
        await network.aclose()
