"""GatewayNetwork over a scripted gateway: every recorded exchange, options, connections, health."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dan_async import DanClient, GatewayNetwork, LocalWallet
from dan_async.config import Threshold, Timeouts, TransportOptions
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.deadline import Deadline
from dan_async.errors import (
    ClientClosedError,
    GatewayError,
    InsecureTransportError,
    InvalidFieldError,
    SessionExpiredError,
)
from dan_async.network import EphemeralKeyChange, EphemeralKeyReport, KeygenRequest, Network
from dan_async.protocols.setups import EphemeralClaim
from dan_async.wallets.base import EoaAuth
from tests.gateway_server import (
    KEY_ID,
    ONCE,
    OWNER_KEY,
    PUBLIC_KEY,
    REQUEST_ID,
    VECTORS,
    CountingWallet,
    Visit,
    challenge_frame,
    honest,
    key_change,
    keygen_request,
    make_claim,
    operate,
    run,
    scripted,
)
from tests.helpers import error_of, no_leaks, wait_until
from tests.servers import ConnectProxy, raw_server

# --- recorded exchanges -----------------------------------------------------------------------------------------------

RECORDED = [case for case in VECTORS if case["operation"] != "signgen"]


def recorded_claim(inputs: dict[str, Any]) -> EphemeralClaim:
    """The ephemeral key of a recording, in force from the recording's clock on."""
    key = EphemeralKey.from_hex(inputs["eph_private_key"], inputs["eph_alg"])
    return EphemeralClaim(
        eph_id=inputs.get("eph_id", key.default_id),
        eph_pk=key.public_key,
        expiry=inputs["now"] + inputs["lifetime"],
        sign_alg=inputs["eph_alg"],
    )


async def replay(case: dict[str, Any], network: GatewayNetwork) -> Any:
    """Do over a network what a recording's client did."""
    inputs = case["inputs"]
    auth = EoaAuth(LocalWallet(inputs["eoa_private_key"]))
    threshold = Threshold(inputs["t"], inputs["n"])
    common = {"request_id": REQUEST_ID, "owner_id": auth.id, "claim": recorded_claim(inputs)}
    if case["operation"] == "keygen":
        request = KeygenRequest(threshold=threshold, permissions=inputs.get("permissions"), **common)
        algorithms = inputs.get("sign_algs", ["secp256k1"])
        if algorithms == ["secp256k1"]:
            return {"secp256k1": await network.keygen(request, auth, deadline=Deadline(10))}
        return await network.keygen_batch(request, auth, sign_algs=algorithms, deadline=Deadline(10))
    action = "add" if case["operation"] == "addEphemeralKey" else "revoke"
    change = EphemeralKeyChange(action=action, key_id=inputs["key_id"], threshold=threshold, **common)
    change_key = network.add_ephemeral_key if action == "add" else network.revoke_ephemeral_key
    return await change_key(change, auth, deadline=Deadline(10))


@pytest.mark.parametrize(
    ("case", "is_told"),
    [
        pytest.param(case, is_told, id=f"{case['name']}-{'told' if is_told else 'found out'}")
        for case in RECORDED
        for is_told in (True, False)
        if is_told or case["revision"] != "0.1"  # which is never found out
    ],
)
async def test_recorded_exchange(case: dict[str, Any], *, is_told: bool) -> None:
    """Path and frames are byte for byte those of the TypeScript clients, and so are key ids and public keys."""
    inputs, revision = case["inputs"], case["revision"]
    version = inputs.get("api_version", "v1")

    async def picky(visit: Visit) -> None:
        frame = await visit.receive()
        if frame != case["frames"][0]:
            await visit.leave(1003, "another revision")
            return
        await visit.send(case["server_replies"][0])
        if version == "v1":
            await visit.receive()
            await visit.send(case["server_replies"][1])
        await visit.gone()

    async with no_leaks(), scripted(picky) as gateway:
        network = GatewayNetwork(
            gateway.url(version),
            revision=revision if is_told else None,
            api_version=version,
            retry=ONCE,
            clock=lambda: float(inputs["now"]),
        )
        report = await replay(case, network)
        await network.aclose()
    assert network.revision == revision
    visit = gateway.visits[-1]
    assert visit.path_qs == case["path"]
    assert visit.frames == case["frames"]
    if case["operation"] != "keygen":
        assert report == EphemeralKeyReport(request_id=REQUEST_ID)
        return
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert [key.key_id for key in report.values()] == [entry["keyId"] for entry in wanted]
    for key, entry in zip(report.values(), wanted, strict=True):
        assert (
            key.public_key.hex()[-64:] == entry["publicKey"][2:66]
            or key.public_key.hex() in entry["publicKey"]
        )
        assert key.threshold == Threshold(inputs["t"], inputs["n"])
        assert key.outcomes == ()


def test_the_recordings_are_there() -> None:
    """All keygen, add and revoke exchanges are among those replayed."""
    assert len(RECORDED) == 48
    assert {case["operation"] for case in RECORDED} == {"keygen", "addEphemeralKey", "revokeEphemeralKey"}


# --- making one -------------------------------------------------------------------------------------------------------


def test_it_is_a_network() -> None:
    """Jobs cannot tell it from other networks."""
    assert isinstance(GatewayNetwork("wss://gateway.example/v1"), Network)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("wss://gateway.example", "must end with the version segment"),
        ("wss://gateway.example/", "must end with the version segment"),
        ("wss://gateway.example/v1/keygen", "must end with the version segment"),
        ("wss://gateway.example/api", "must end with the version segment"),
        ("wss://gateway.example/v2", "ends with /v2, and api_version is v1"),
        ("wss://gateway.example/v10", "ends with /v10, and api_version is v1"),
        ("https://gateway.example/v1", "must be a URL that begins with wss:// or ws://"),
        ("gateway.example/v1", "must be a URL that begins with"),
        (b"wss://gateway.example/v1", "must be a URL as text"),
        (None, "must be a URL as text"),
    ],
)
def test_a_wrong_url_is_refused(url: Any, said: str) -> None:
    """Before anything is opened, with what is wrong and an example."""
    with pytest.raises(InvalidFieldError, match=said) as caught:
        GatewayNetwork(url)
    assert caught.value.field == "url"


def test_a_contradicting_version_is_refused_the_other_way_round() -> None:
    """v2 needs a URL that says so."""
    with pytest.raises(InvalidFieldError, match="ends with /v1, and api_version is v2"):
        GatewayNetwork("wss://gateway.example/v1", api_version="v2")


@pytest.mark.parametrize("host", ["gateway.example", "192.0.2.1", "localhost.example"])
def test_plain_text_to_elsewhere_is_refused(host: str) -> None:
    """ws:// is for loopback; nothing is connected."""
    with pytest.raises(InsecureTransportError, match="url uses ws://"):
        GatewayNetwork(f"ws://{host}/v1")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"revision": "0.2"}, "revision"),
        ({"revision": 1}, "revision"),
        ({"revision": ""}, "revision"),
        ({"api_version": "v3"}, "api_version"),
        ({"api_version": "v2", "revision": "0.3"}, "api_version"),
        ({"api_version": "v2", "revision": "0.1"}, "api_version"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], field: str) -> None:
    """The error names the option."""
    with pytest.raises(InvalidFieldError) as caught:
        GatewayNetwork(f"wss://gateway.example/{options.get('api_version', 'v1')}", **options)
    assert caught.value.field == field


def test_two_sets_of_credentials_are_refused() -> None:
    """Credentials in the URL and in a header: only one can be sent."""
    with pytest.raises(InvalidFieldError, match="credentials") as caught:
        GatewayNetwork(
            "wss://user:hunter22@gateway.example/v1",
            options=TransportOptions(headers={"authorization": "Bearer abcdef"}),
        )
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "algorithm"),
    [
        ({}, "ed25519"),
        ({"revision": "0.1"}, "ed25519"),
        ({"revision": "0.3"}, "ed25519"),
        ({"revision": "1"}, "secp256k1"),
        ({"api_version": "v2"}, "secp256k1"),
    ],
)
def test_the_usual_ephemeral_key(options: dict[str, Any], algorithm: str) -> None:
    """secp256k1 where the revision is known to take it, else what all of them take."""
    url = f"wss://gateway.example/{options.get('api_version', 'v1')}"
    assert GatewayNetwork(url, **options).default_eph_alg == algorithm


def test_the_usual_threshold() -> None:
    """3-of-5, or what was given."""
    assert GatewayNetwork("wss://gateway.example/v1").default_threshold == Threshold(3, 5)
    network = GatewayNetwork("wss://gateway.example/v1", threshold=Threshold(2, 2))
    assert network.default_threshold == Threshold(2, 2)


def test_repr_has_no_credentials() -> None:
    """Neither those of the URL nor its query."""
    network = GatewayNetwork("wss://user:hunter22@gateway.example/v1?key=hunter23")
    assert repr(network) == "GatewayNetwork('wss://gateway.example/v1', revision=None, default 3-of-5)"


@pytest.mark.parametrize("suffix", ["", "/", "?key=abcdef", "/?key=abcdef"])
async def test_forms_of_the_url(suffix: str) -> None:
    """With and without a slash at the end; a query stays where it belongs."""
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(gateway.url() + suffix, revision="0.3")
        await operate(network)
        await network.aclose()
    assert gateway.visits[0].path_qs == "/v1/keygen" + suffix.lstrip("/")


# --- what each operation gives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["keygen", "addEphemeralKey", "revokeEphemeralKey"])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_operations_of_revision_1(operation: str, version: str) -> None:
    """Each is one connection to its own path."""
    async with no_leaks(), scripted(honest) as gateway:
        await run(gateway, operation=operation, revision="1", version=version)
    assert [(visit.version, visit.operation) for visit in gateway.visits] == [(version, operation)]
    assert len(gateway.visits[0].frames) == (2 if version == "v1" else 1)


async def test_a_report() -> None:
    """What the gateway says, for what was asked."""
    async with no_leaks(), scripted(honest) as gateway:
        report = await run(gateway, revision="0.3", request=keygen_request(threshold=Threshold(4, 7)))
    assert (report.request_id, report.key_id, report.public_key) == (REQUEST_ID, KEY_ID, PUBLIC_KEY)
    assert report.threshold == Threshold(4, 7)
    assert report.outcomes == ()
    setup = json.loads(gateway.visits[0].frames[0])
    assert (setup["t"], setup["n"]) == (4, 7)


async def test_generate_session_key_over_a_gateway() -> None:
    """The job does not know which network it has."""
    async with no_leaks(), scripted(honest) as gateway, DanClient(GatewayNetwork(gateway.url())) as dan:
        session = await dan.generate_session_key(
            wallet=LocalWallet(OWNER_KEY), chain_id=80002, permissions='{"permissions":[]}', key_label="bot"
        )
        assert (session.mpc_key_id, session.threshold, session.parties_number) == (KEY_ID, 3, 5)
        added = await dan.add_ephemeral_key(session, wallet=LocalWallet(OWNER_KEY))
        await dan.revoke_ephemeral_key(added, wallet=LocalWallet(OWNER_KEY))
    (setup,) = json.loads(gateway.visits[0].frames[0])
    assert setup["key_label"] == "bot"
    assert setup["metadata"][0] == {"tag": 1, "value": '{"permissions":[]}'}
    assert [visit.operation for visit in gateway.visits] == [
        "keygen",
        "addEphemeralKey",
        "revokeEphemeralKey",
    ]


@pytest.mark.parametrize(
    ("revision", "operation"),
    [("0.1", "addEphemeralKey"), ("0.1", "revokeEphemeralKey"), ("0.3", "revokeEphemeralKey")],
)
async def test_operations_that_a_revision_lacks(revision: str, operation: str) -> None:
    """Refused before anything is opened."""
    wallet = CountingWallet()
    async with no_leaks(), scripted(honest) as gateway:
        with pytest.raises(InvalidFieldError, match=f"does not exist in revision {revision}"):
            await run(gateway, operation=operation, revision=revision, wallet=wallet)
    assert gateway.requests == []
    assert wallet.asked == 0


async def test_adding_in_0_3_needs_n() -> None:
    """The setup of 0.3 names n, which an old payload may not have."""
    change = key_change("add", threshold=None)
    async with no_leaks(), scripted(honest) as gateway:
        with pytest.raises(InvalidFieldError, match=r"threshold is needed in revision 0\.3"):
            await run(gateway, operation="addEphemeralKey", revision="0.3", request=change)
        await run(gateway, operation="addEphemeralKey", revision="1", request=change)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("revision", ["0.1", "0.3"])
async def test_a_key_that_the_revision_does_not_take(revision: str) -> None:
    """secp256k1 ephemeral keys are for revision 1; the hint says what works."""
    request = keygen_request(claim=make_claim("secp256k1"))
    network = GatewayNetwork("wss://gateway.example/v1", revision=revision)
    with pytest.raises(InvalidFieldError, match=f"eph_alg must be ed25519 in revision {revision}") as caught:
        network.check_keygen(request)
    assert "ed25519" in caught.value.hint


async def test_a_method_that_the_revision_does_not_take() -> None:
    """Passkeys came after 0.1: said before the wallet is asked."""

    class Passkey:
        method, id, interactive = "passkey", "credential", True

        async def authorise(self, **_: Any) -> str:
            raise AssertionError("asked")

    network = GatewayNetwork("ws://127.0.0.1:9/v1", revision="0.1")
    with pytest.raises(InvalidFieldError, match="method must be eoa"):
        await network.keygen(keygen_request(), Passkey(), deadline=Deadline(5))  # type: ignore[arg-type]


@pytest.mark.parametrize("algorithms", [(), ("secp256k1", "secp256k1"), ("rsa",)])
@pytest.mark.parametrize("revision", [None, "0.3", "1"])
async def test_wrong_algorithms_of_a_batch(algorithms: Any, revision: str | None) -> None:
    """None, one twice, or an unknown one: named before anything is opened, also where the revision is not known."""
    network = GatewayNetwork("ws://127.0.0.1:9/v1", revision=revision)
    with pytest.raises(InvalidFieldError) as caught:
        await network.keygen_batch(
            keygen_request(), CountingWallet().auth, sign_algs=algorithms, deadline=Deadline(5)
        )
    assert caught.value.field == "sign_algs"


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_an_expired_claim_is_not_sent(version: str) -> None:
    """Neither the gateway nor the wallet hears of it."""
    wallet = CountingWallet()
    request = keygen_request(claim=make_claim(expiry=1_700_000_000))
    async with no_leaks(), scripted(honest) as gateway:
        with pytest.raises(SessionExpiredError):
            await run(
                gateway,
                version=version,
                revision="1",
                wallet=wallet,
                request=request,
                clock=lambda: 1_700_000_000.0,
            )
    assert gateway.requests == []
    assert wallet.asked == 0


async def test_a_claim_that_expires_at_the_wallet_is_not_sent() -> None:
    """Someone who signs too late signs for nothing."""
    now = 1_700_000_000.0

    async def read_slowly() -> None:
        nonlocal now
        now += 60

    wallet = CountingWallet(interactive=True, before=read_slowly)
    request = keygen_request(claim=make_claim(expiry=1_700_000_060))
    async with no_leaks(), scripted(honest) as gateway:
        with pytest.raises(SessionExpiredError) as caught:
            await run(gateway, revision="0.3", wallet=wallet, request=request, clock=lambda: now)
        await wait_until(lambda: gateway.visits[0].is_over)
    assert caught.value.phase == "wallet"
    assert len(gateway.visits[0].frames) == 1


# --- connections ------------------------------------------------------------------------------------------------------


async def test_headers_reach_the_gateway() -> None:
    """An API key, for example; and no compression is offered."""
    options = TransportOptions(headers={"X-Api-Key": "abcdef", "Authorization": "Bearer ghijkl"})
    async with no_leaks(), scripted(honest) as gateway:
        await run(gateway, revision="0.3", options=options)
    headers = gateway.visits[0].headers
    assert (headers["X-Api-Key"], headers["Authorization"]) == ("abcdef", "Bearer ghijkl")
    assert "Sec-WebSocket-Extensions" not in headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """The other host sees not a byte."""
    async with no_leaks(), scripted(honest) as elsewhere:
        location = elsewhere.url().replace("ws://", "http://") + "/keygen"
        async with scripted(
            honest, upgrade=lambda _: web.Response(status=status, headers={"Location": location})
        ) as gateway:
            error = await error_of(run(gateway, revision="0.3"))
        assert elsewhere.requests == []
    assert type(error) is GatewayError
    assert error.status == status
    assert not error.retryable


@pytest.mark.parametrize("name", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "WS_PROXY", "WSS_PROXY"])
async def test_a_proxy_of_the_environment_is_ignored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed requests go where they were told to."""
    proxy = ConnectProxy()
    async with no_leaks(), raw_server(proxy) as port, scripted(honest) as gateway:
        for spelled in (name, name.lower()):
            monkeypatch.setenv(spelled, f"http://127.0.0.1:{port}")
        await run(gateway, revision="0.3")
    assert proxy.heads == []


async def test_a_proxy_that_was_given_is_used() -> None:
    """The way out of a company's network."""
    proxy = ConnectProxy()
    async with no_leaks(), raw_server(proxy) as port, scripted(honest) as gateway:
        await run(gateway, revision="0.3", options=TransportOptions(proxy=f"http://127.0.0.1:{port}"))
    assert len(proxy.heads) == 1


async def test_a_given_session_is_used_and_left_open() -> None:
    """Its headers and connector, not its environment proxies; closing the network does not close it."""
    async with (
        no_leaks(),
        scripted(honest) as gateway,
        aiohttp.ClientSession(headers={"X-From-Session": "yes"}) as session,
    ):
        await run(gateway, revision="0.3", session=session)
        assert gateway.visits[0].headers["X-From-Session"] == "yes"
        assert not session.closed
        await run(gateway, revision="0.3", session=session)


async def test_a_given_session_that_was_closed() -> None:
    """Told as what it is."""
    session = aiohttp.ClientSession()
    await session.close()
    network = GatewayNetwork("ws://127.0.0.1:9/v1", revision="0.3", session=session)
    with pytest.raises(ClientClosedError, match="closed by its owner"):
        await operate(network)
    await network.aclose()


async def test_operations_share_one_session() -> None:
    """No session, and no TLS context, is made for each of them."""
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3")
        await operate(network)
        session = network._gateway.connector._session
        await operate(network)
        assert network._gateway.connector._session is session
        await network.aclose()


async def test_many_operations_at_once() -> None:
    """More than a usual connection limit, each with the key that was made for it."""
    count = 150

    async def own_key(visit: Visit) -> None:
        await visit.receive()
        label = json.loads(visit.frames[0])["key_label"]
        await asyncio.sleep(0.001 * (hash(label) % 20))
        await visit.send(challenge_frame(visit))
        await visit.receive()
        await visit.send(f"keyId={label}:publicKey={PUBLIC_KEY.hex()}")
        await visit.gone()

    async with no_leaks(), scripted(own_key) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3", timeouts=Timeouts(connect_s=30))
        requests = [keygen_request(key_label=f"key-{number}") for number in range(count)]
        reports = await asyncio.gather(
            *(operate(network, request=request, total_s=50) for request in requests)
        )
        await network.aclose()
    assert [report.key_id for report in reports] == [request.key_label for request in requests]


async def test_a_slow_person_does_not_keep_others_out() -> None:
    """A hundred and fifty prompts are open; one more keygen goes through."""
    signal = asyncio.Event()
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3", timeouts=Timeouts(connect_s=30))
        wallets = [CountingWallet(interactive=True, before=signal.wait, timeout_s=60) for _ in range(150)]
        waiting = [asyncio.create_task(operate(network, wallet=wallet, total_s=50)) for wallet in wallets]
        await wait_until(lambda: all(wallet.asked for wallet in wallets), timeout_s=40)
        assert (await operate(network, total_s=50)).key_id == KEY_ID
        signal.set()
        await asyncio.gather(*waiting)
        await network.aclose()


# --- health and closing -----------------------------------------------------------------------------------------------


async def test_health_of_a_gateway() -> None:
    """It takes a connection; nothing is sent on it."""

    async def wait(visit: Visit) -> None:
        await visit.gone()

    async with no_leaks(), scripted(wait) as gateway:
        network = GatewayNetwork(gateway.url())
        health = await network.health()
        await network.aclose()
    (node,) = health.nodes
    assert (health.live, node.name, node.url) == (1, gateway.url(), gateway.url())
    assert node.latency_s is not None
    assert gateway.visits[0].frames == []


async def test_health_of_a_gateway_that_is_down() -> None:
    """Reported, not raised; without credentials."""
    network = GatewayNetwork("ws://user:hunter22@127.0.0.1:9/v1")
    async with no_leaks():
        (node,) = (await network.health(timeout_s=2)).nodes
        await network.aclose()
    assert not node.is_live
    assert "no connection" in node.problem
    assert "hunter22" not in repr(node)


async def test_a_closed_network() -> None:
    """Every call says so; closing twice is fine, also without ever having been used."""
    network = GatewayNetwork("ws://127.0.0.1:9/v1")
    await network.aclose()
    await network.aclose()
    for operation in ("keygen", "addEphemeralKey", "revokeEphemeralKey"):
        with pytest.raises(ClientClosedError):
            await operate(network, operation)
    with pytest.raises(ClientClosedError):
        network.check_keygen(keygen_request())
    (node,) = (await network.health()).nodes
    assert "closed by its owner" in node.problem
