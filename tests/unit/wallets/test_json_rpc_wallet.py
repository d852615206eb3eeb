"""A wallet behind JSON-RPC, over a transport in memory and over HTTP."""

import asyncio
import json

import pytest
from aiohttp import web

from dan_async.errors import (
    ClientClosedError,
    ConnectError,
    ConnectionLostError,
    InsecureTransportError,
    InvalidFieldError,
    ProtocolError,
    RpcError,
    WalletError,
    WalletRefusedError,
    WalletSignatureError,
    WalletTimeoutError,
)
from dan_async.transport import InMemoryTransport
from dan_async.wallets import JsonRpcWallet, LocalWallet, Wallet
from tests.unit.crypto.vectors import WALLET_CASES

OWNER = LocalWallet(bytes(range(1, 33)))
TYPED_DATA = WALLET_CASES[0]["wallet"]["typed_data"]


class FakeWallet:
    """The far end: keeps what it was asked, and answers or raises what the test sets."""

    def __init__(self):
        self.asked = []
        self.accounts = [OWNER.address.lower()]
        self.answer = None

    async def __call__(self, method, params):
        self.asked.append((method, params))
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is not None:
            return self.answer
        if method == "eth_accounts":
            return self.accounts
        return await OWNER.sign_typed_data(json.loads(params[1]))


@pytest.fixture
def far_end():
    """The far end."""
    return FakeWallet()


@pytest.fixture
def transport(far_end):
    """A way to it."""
    return InMemoryTransport(far_end)


@pytest.fixture
def wallet(transport):
    """The wallet."""
    return JsonRpcWallet(transport, address=OWNER.address)


async def test_it_asks_for_a_v4_signature(wallet, far_end):
    """The address, and the typed data as a JSON text."""
    assert await wallet.sign_typed_data(TYPED_DATA) == await OWNER.sign_typed_data(TYPED_DATA)
    [(method, [address, text])] = far_end.asked
    assert method == "eth_signTypedData_v4"
    assert address == OWNER.address
    assert json.loads(text) == TYPED_DATA


async def test_connect_asks_for_the_first_account(transport, far_end):
    """Without an address the wallet is asked, and its first account is taken."""
    far_end.accounts = [OWNER.address.lower(), "0x" + "12" * 20]
    wallet = await JsonRpcWallet.connect(transport)
    assert wallet.address == OWNER.address
    assert far_end.asked == [("eth_accounts", [])]


async def test_connect_with_an_address_asks_nothing(transport, far_end):
    """What is known need not be asked."""
    wallet = await JsonRpcWallet.connect(transport, address=OWNER.address, interactive=False)
    assert (wallet.address, wallet.interactive, far_end.asked) == (OWNER.address, False, [])


def test_it_is_a_wallet_in_front_of_a_person(wallet):
    """It has what the protocol asks for, and a person is assumed unless told otherwise."""
    assert isinstance(wallet, Wallet)
    assert wallet.interactive is True


@pytest.mark.parametrize(
    ("accounts", "problem"),
    [
        ([], "offers no account"),
        ([5], "holds no address"),
        (["0x12"], "holds no address"),
        ([None], "holds no address"),
        ({}, "is not a list"),
        ("0x" + "12" * 20, "is not a list"),
    ],
)
async def test_a_wallet_without_a_usable_account_is_refused(transport, far_end, accounts, problem):
    """No accounts, and answers that are none."""
    far_end.accounts = accounts
    with pytest.raises(WalletError, match=problem):
        await JsonRpcWallet.connect(transport)


@pytest.mark.parametrize("code", [4001, 5000])
async def test_an_owner_who_declines_is_a_refusal(wallet, far_end, code):
    """The codes of EIP-1193 and WalletConnect for "user rejected"."""
    far_end.answer = RpcError(code, "User rejected the request.")
    with pytest.raises(WalletRefusedError, match="declined") as caught:
        await wallet.sign_typed_data(TYPED_DATA)
    assert caught.value.phase == "wallet"
    assert isinstance(caught.value.__cause__, RpcError)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (-32601, "eth_signTypedData_v4"),
        (4200, "eth_signTypedData_v4"),
        (4100, "Unlock"),
        (-32000, "the wallet's documentation"),
    ],
)
async def test_another_error_is_told_in_the_wallets_words(wallet, far_end, code, hint):
    """With its code, and with advice where the code allows some."""
    far_end.answer = RpcError(code, "something is wrong")
    with pytest.raises(WalletError, match=f"error {code}: something is wrong") as caught:
        await wallet.sign_typed_data(TYPED_DATA)
    assert not isinstance(caught.value, WalletRefusedError)
    assert hint in caught.value.hint


async def test_a_long_error_text_is_cut(wallet, far_end):
    """A wallet does not fill our logs."""
    far_end.answer = RpcError(1, "x" * 10_000)
    with pytest.raises(WalletError) as caught:
        await wallet.sign_typed_data(TYPED_DATA)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("error", [ConnectError("no"), ConnectionLostError("gone"), ProtocolError("what?")])
async def test_a_wallet_that_cannot_be_asked_is_told_as_such(wallet, far_end, error):
    """Errors of the connection become errors of the wallet, with their cause."""
    far_end.answer = error
    with pytest.raises(WalletError, match="could not be asked") as caught:
        await wallet.sign_typed_data(TYPED_DATA)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("answer", [5, True, ["0x"], {"signature": "0x"}])
async def test_an_answer_that_is_no_text_is_no_signature(wallet, far_end, answer):
    """Whatever else it may be."""
    far_end.answer = answer
    with pytest.raises(WalletSignatureError, match="is not text"):
        await wallet.sign_typed_data(TYPED_DATA)


async def hangs(method, params):
    """Never answers."""
    await asyncio.Event().wait()


async def test_a_wallet_that_does_not_answer_times_out():
    """While signing; the transport is usable afterwards and has nothing pending."""
    transport = InMemoryTransport(hangs)
    wallet = JsonRpcWallet(transport, address=OWNER.address, timeout_s=0.01)
    with pytest.raises(WalletTimeoutError, match=r"within 0\.01 s"):
        await wallet.sign_typed_data(TYPED_DATA)
    assert len(transport._in_flight) == 0


async def test_a_wallet_that_does_not_tell_its_accounts_times_out():
    """While connecting."""
    with pytest.raises(WalletTimeoutError, match="eth_accounts"):
        await JsonRpcWallet.connect(InMemoryTransport(hangs), timeout_s=0.01)


async def test_cancelling_passes_and_leaves_nothing():
    """A job that is cancelled while the owner reads has no request left."""
    asked = asyncio.Event()

    async def reads(method, params):
        asked.set()
        await asyncio.Event().wait()

    transport = InMemoryTransport(reads)
    task = asyncio.create_task(JsonRpcWallet(transport, address=OWNER.address).sign_typed_data(TYPED_DATA))
    await asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(transport._in_flight) == 0


@pytest.mark.parametrize("typed_data", [{"message": b"bytes"}, {"message": float("nan")}, {("a",): 1}])
async def test_what_json_cannot_carry_is_refused_before_the_wallet_is_asked(wallet, far_end, typed_data):
    """With our error, and nothing sent."""
    with pytest.raises(InvalidFieldError) as caught:
        await wallet.sign_typed_data(typed_data)
    assert caught.value.field == "typed_data"
    assert far_end.asked == []


async def test_a_transport_that_was_given_stays_open(transport):
    """Whoever opens closes."""
    async with JsonRpcWallet(transport, address=OWNER.address):
        pass
    async with await JsonRpcWallet.connect(transport):
        pass
    assert await transport.call("eth_accounts", "[]", timeout_s=1) == [OWNER.address.lower()]


async def test_a_failed_connect_leaves_a_given_transport_open(transport, far_end):
    """Also then it is not ours to close."""
    far_end.accounts = []
    with pytest.raises(WalletError):
        await JsonRpcWallet.connect(transport)
    assert await transport.call("eth_accounts", "[]", timeout_s=1) == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"address": "0x12"}, "address"),
        ({"address": None}, "address"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": True}, "timeout_s"),
        ({"url": "ftp://127.0.0.1"}, "url"),
        ({"url": "ws://127.0.0.1"}, "url"),
        ({"url": ""}, "url"),
    ],
)
def test_wrong_arguments_are_refused(transport, arguments, field):
    """The error names the field."""
    arguments = {"url": transport, "address": OWNER.address} | arguments
    with pytest.raises(InvalidFieldError) as caught:
        JsonRpcWallet(arguments.pop("url"), **arguments)
    assert caught.value.field == field


async def test_connect_checks_its_timeout_too(transport, far_end):
    """Before the wallet is asked."""
    with pytest.raises(InvalidFieldError):
        await JsonRpcWallet.connect(transport, timeout_s=-1)
    assert far_end.asked == []


def test_plain_http_to_elsewhere_is_refused():
    """What the owner signs does not travel in clear text."""
    with pytest.raises(InsecureTransportError):
        JsonRpcWallet("http://wallet.example", address=OWNER.address)


def test_its_repr_does_not_show_the_url():
    """A URL may carry an API key."""
    wallet = JsonRpcWallet("https://user:secret@wallet.example/key-123", address=OWNER.address)
    assert repr(wallet) == f"JsonRpcWallet(address='{OWNER.address}', interactive=True)"


@pytest.fixture
async def http_url(far_end):
    """The far end behind a real HTTP server."""

    async def handle(request):
        body = await request.json()
        reply = {"jsonrpc": "2.0", "id": body["id"]}
        try:
            reply["result"] = await far_end(body["method"], body["params"])
        except RpcError as error:
            reply["error"] = {"code": error.code, "message": str(error)}
        return web.json_response(reply)

    app = web.Application()
    app.router.add_post("/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_over_http_it_signs_and_closes_its_connection(http_url):
    """The whole way, and nothing is left open after it; closing twice is fine."""
    wallet = await JsonRpcWallet.connect(http_url)
    async with wallet:
        assert await wallet.sign_typed_data(TYPED_DATA) == await OWNER.sign_typed_data(TYPED_DATA)
    await wallet.aclose()
    with pytest.raises(ClientClosedError):
        await wallet.sign_typed_data(TYPED_DATA)


async def test_over_http_a_refusal_is_a_refusal(http_url, far_end):
    """The code survives the wire."""
    far_end.answer = RpcError(4001, "no")
    async with JsonRpcWallet(http_url, address=OWNER.address) as wallet:
        with pytest.raises(WalletRefusedError):
            await wallet.sign_typed_data(TYPED_DATA)


async def test_over_http_a_failed_connect_closes_what_it_opened(http_url, far_end, monkeypatch):
    """No session is left to warn about when the program ends."""
    from dan_async.transport import HttpTransport

    closed = []
    aclose = HttpTransport.aclose

    async def recording_aclose(self):
        closed.append(self)
        await aclose(self)

    monkeypatch.setattr(HttpTransport, "aclose", recording_aclose)
    far_end.accounts = []
    with pytest.raises(WalletError, match="offers no account"):
        await JsonRpcWallet.connect(http_url)
    assert len(closed) == 1


async def test_over_http_a_wallet_that_is_not_there_is_told_as_such(http_url, unused_tcp_port_factory):
    """A closed port is an error of the wallet, in words."""
    url = f"http://127.0.0.1:{unused_tcp_port_factory()}"
    async with JsonRpcWallet(url, address=OWNER.address) as wallet:
        with pytest.raises(WalletError, match="could not be asked"):
            await wallet.sign_typed_data(TYPED_DATA)
