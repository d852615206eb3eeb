"""The job: parameters, defaults, inference, payload; nothing is sent when something is wrong."""

from __future__ import annotations

import copy
import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from eth_account import Account as EthAccount

from dan_async import DanClient, Devnet, EphemeralKey, LocalWallet, generate_session_key
from dan_async.config import Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.errors import (
    ClientClosedError,
    ConfigurationError,
    ConnectionLostError,
    InvalidFieldError,
    QuorumError,
    RpcError,
    WalletRefusedError,
    WalletTimeoutError,
    WrongSignerError,
)
from dan_async.network import KeygenReport
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.request import HardcodedValues
from dan_async.wallets import CallbackWallet
from dan_async.wallets.eth_account_wallet import EthAccountWallet
from tests.fake_nodes import OWNER, FakeNetwork

WALLET = LocalWallet("0x" + "00" * 31 + "01")
OTHER_WALLET = LocalWallet("0x" + "00" * 31 + "02")
SECRET = "5ec7e7" + "ab" * 29
NOW = 1_800_000_000.75


class Account:
    """A smart account client, as little of it as the job needs."""

    def __init__(self, *, signer: Any = WALLET, bundler_url: Any = None, chain_id: Any = None) -> None:
        self.signer = signer
        self.bundler_url = bundler_url
        self.chain_id = chain_id

    async def get_address(self) -> str:
        return OWNER


class Nodes:
    """A client over scripted nodes, and what they were sent."""

    def __init__(self, t: int = 2, n: int = 3) -> None:
        self.fake = FakeNetwork(t, n)
        self.client = DanClient(
            self.fake.network(), clock=lambda: NOW, timeouts=Timeouts(total_s=5, wallet_s=0.2)
        )

    def setup(self) -> Any:
        params = next(params for _, method, params in self.fake.calls if method == "dan_keygen")
        return REVISION_1.decode_setup("keygen", params["setup"])


@pytest.fixture
async def nodes() -> Any:
    made = Nodes()
    yield made
    await made.client.aclose()


async def test_the_payload(nodes: Nodes) -> None:
    """The seed's seven fields and four more, consistent with what the nodes were told."""
    payload = await nodes.client.generate_session_key(wallet=WALLET, chain_id=80002)
    assert payload.eoa_address == OWNER
    assert payload.chain_id == 80002
    assert (payload.threshold, payload.parties_number) == (2, 3)
    assert payload.expires_at == 1_800_003_600
    assert payload.session_key_eoa == public_key_to_address(payload.public_key)
    key = EphemeralKey.from_hex(payload.hex_eph_sk_without_0x, "secp256k1")
    claim = REVISION_1.decode_claim(nodes.setup().claim_text)
    assert claim.eph_pk == key.public_key
    assert claim.eph_id == key.default_id == payload.eph_id
    assert claim.expiry == payload.expires_at
    assert list(payload.to_dict()) == [
        "sessionKeyEOA",
        "mpcKeyId",
        "hexEphSKWithout0x",
        "partiesNumber",
        "threshold",
        "eoaAddress",
        "chainId",
    ]


async def test_the_seeds_own_shape(nodes: Nodes) -> None:
    """The module-level function takes an account and asks its signer."""
    account = Account(chain_id=137)
    payload = await generate_session_key(smart_account_client=account, client=nodes.client, duration=60)
    assert (payload.eoa_address, payload.chain_id) == (OWNER, 137)
    assert payload.expires_at == 1_800_000_060


@pytest.mark.parametrize(
    ("url", "chain"),
    [
        ("https://bundler.example/api/v2/80002/key", 80002),
        ("https://bundler.example/api/v3/1/key.with.dots", 1),
        ("https://bundler.example/api/v2/8453", 8453),
    ],
)
async def test_chain_id_from_the_bundler_url(nodes: Nodes, url: str, chain: int) -> None:
    """Without a chain id, the bundler URL's is used."""
    account = Account(bundler_url=url)
    payload = await nodes.client.generate_session_key(smart_account_client=account)
    assert payload.chain_id == chain


async def test_an_account_of_eth_account_is_no_wallet_yet(nodes: Nodes) -> None:
    """It is refused before anything is sent, and the error says how to make it one."""
    account = EthAccount.from_key("0x" + "00" * 31 + "01")
    with pytest.raises(InvalidFieldError, match=r"EthAccountWallet\(account\)") as caught:
        await nodes.client.generate_session_key(wallet=account, chain_id=1)
    assert caught.value.field == "wallet.interactive"
    assert nodes.fake.calls == []
    assert (
        await nodes.client.generate_session_key(wallet=EthAccountWallet(account), chain_id=1)
    ).chain_id == 1


@pytest.mark.parametrize("missing", ["id", "interactive", "authorise"])
async def test_an_owner_that_lacks_something_is_refused(nodes: Nodes, missing: str) -> None:
    """Before anything is sent as well."""

    async def authorise(**_: Any) -> str:
        return ""

    members = {"method": "passkey", "id": "A" * 22, "interactive": False, "authorise": authorise}
    del members[missing]
    with pytest.raises(InvalidFieldError, match="must be an owner"):
        await nodes.client.generate_session_key(auth=SimpleNamespace(**members), chain_id=1)
    assert nodes.fake.calls == []


async def test_chain_id_precedence(nodes: Nodes) -> None:
    """The given chain id wins over the account's, which wins over its URL's."""
    account = Account(chain_id=10, bundler_url="https://x.example/api/v2/1/key")
    assert (await nodes.client.generate_session_key(smart_account_client=account)).chain_id == 10
    payload = await nodes.client.generate_session_key(smart_account_client=account, chain_id=5)
    assert payload.chain_id == 5


@pytest.mark.parametrize(
    "url", [None, "", "https://x.example/api/v4/1/key", "https://x.example/api/v2//key", 7]
)
async def test_an_unknown_chain_is_an_error_before_anything_is_sent(nodes: Nodes, url: Any) -> None:
    """No chain id anywhere: one clear error."""
    with pytest.raises(InvalidFieldError, match="chain_id was not given and cannot be inferred"):
        await nodes.client.generate_session_key(smart_account_client=Account(bundler_url=url))
    assert not nodes.fake.calls


async def test_the_browser_wallet_wins(nodes: Nodes) -> None:
    """browser_wallet is asked instead of the account's signer."""
    account = Account(signer=OTHER_WALLET, chain_id=1)
    payload = await nodes.client.generate_session_key(smart_account_client=account, browser_wallet=WALLET)
    assert payload.eoa_address == WALLET.address


@pytest.mark.parametrize("style", ["snake", "camel", "model"])
async def test_hardcoded_values(style: str) -> None:
    """Every hardcoded value is used as given, under our names or TypeScript's."""
    nodes = Nodes(2, 3)
    snake = {
        "eoa_address": OWNER,
        "hex_eph_sk_without_0x": SECRET,
        "threshold": 2,
        "parties_number": 2,
        "chain_id": 42,
    }
    camel = {
        "eoaAddress": OWNER.lower(),
        "hexEphSKWithout0x": SECRET,
        "threshold": 2,
        "partiesNumber": 2,
        "chainId": 42,
    }
    values: Any = {"snake": snake, "camel": camel, "model": HardcodedValues(**snake)}[style]
    payload = await nodes.client.generate_session_key(wallet=WALLET, hardcoded_values=values)
    assert payload.hex_eph_sk_without_0x == SECRET
    assert (payload.threshold, payload.parties_number, payload.chain_id) == (2, 2, 42)
    await nodes.client.aclose()


async def test_permissions_go_as_tag_1(nodes: Nodes) -> None:
    """A JSON text is kept to the letter; an object is written compactly."""
    text = '{ "permissions": [] }'
    await nodes.client.generate_session_key(wallet=WALLET, chain_id=1, permissions=text)
    assert nodes.setup().permissions == text
    nodes.fake.calls.clear()
    await nodes.client.generate_session_key(wallet=WALLET, chain_id=1, permissions={"permissions": []})
    assert nodes.setup().permissions == '{"permissions":[]}'


@pytest.mark.parametrize(
    ("permissions", "field"),
    [
        ({"allow": []}, "permissions"),
        ([{"type": "erc20", "method": "approve"}], r"permissions\[0\]\.to"),
        ({"permissions": [], "chainId": [1, 10]}, "permissions.chainId"),
        ({"permissions": [], "validUntil": 1_000_000}, "permissions.validUntil"),
        ({"permissions": [], "validAfter": 2**40}, "permissions.validAfter"),
        (
            {"permissions": [], "validUntil": int(NOW + 60) * 1000},
            "permissions.validUntil must be in Unix seconds",
        ),
        (
            [{"type": "call", "to": OWNER, "validUntil": int(NOW + 60) * 1000}],
            r"permissions\[0\]\.validUntil",
        ),
    ],
)
async def test_permissions_that_cannot_be_meant(nodes: Nodes, permissions: Any, field: str) -> None:
    """Unreadable ones, another chain's or time's, and times in milliseconds are refused before anybody is asked."""
    with pytest.raises(InvalidFieldError, match=field):
        await nodes.client.generate_session_key(wallet=WALLET, chain_id=42, permissions=permissions)
    assert nodes.fake.calls == []


async def test_own_ephemeral_key_id_and_label(nodes: Nodes) -> None:
    """A given ephemeral key is used and not wiped; its id and the label reach the nodes."""
    key = EphemeralKey.generate("ed25519")
    payload = await nodes.client.generate_session_key(
        wallet=WALLET, chain_id=1, ephemeral_key=key, eph_id="agent-7", key_label="desk 3"
    )
    assert (payload.eph_alg, payload.eph_id) == ("ed25519", "agent-7")
    assert payload.hex_eph_sk_without_0x == key.to_hex()
    assert nodes.setup().key_label == "desk 3"


async def test_fifty_at_once(nodes: Nodes) -> None:
    """Fifty concurrent calls on one client each get their own key."""
    import asyncio

    payloads = await asyncio.gather(
        *(nodes.client.generate_session_key(wallet=WALLET, chain_id=1) for _ in range(50))
    )
    assert len({p.session_key_eoa for p in payloads}) == 50
    assert len({p.hex_eph_sk_without_0x for p in payloads}) == 50


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"duration": 0}, "duration"),
    ({"duration": -1}, "duration"),
    ({"duration": 366 * 24 * 3600}, "duration"),
    ({"duration": True}, "duration"),
    ({"duration": 60.0}, "duration"),
    ({"duration": "60"}, "duration"),
    ({"duration": None}, "duration"),
    ({"chain_id": 0}, "chain_id"),
    ({"chain_id": -1}, "chain_id"),
    ({"chain_id": True}, "chain_id"),
    ({"chain_id": "1"}, "chain_id"),
    ({"chain_id": 2**60}, "chain_id"),
    ({"threshold": 1}, "threshold"),
    ({"threshold": 0}, "threshold"),
    ({"threshold": 4}, "threshold"),
    ({"threshold": True}, "threshold"),
    ({"threshold": "2"}, "threshold"),
    ({"threshold": 2.0}, "threshold"),
    ({"parties_number": 1}, "parties_number"),
    ({"parties_number": 21, "threshold": 2}, "parties_number"),
    ({"parties_number": 4}, "parties_number"),
    ({"min_parties": 1}, "min_parties"),
    ({"min_parties": 4}, "min_parties"),
    ({"min_parties": True}, "min_parties"),
    ({"min_holders": 1}, "min_holders"),
    ({"min_holders": 4}, "min_holders"),
    ({"min_holders": "2"}, "min_holders"),
    ({"permissions": "{"}, "permissions"),
    ({"permissions": "3"}, "permissions"),
    ({"permissions": ""}, "permissions"),
    ({"permissions": 3}, "permissions"),
    ({"permissions": {"a": object()}}, "permissions"),
    ({"permissions": {"a": float("nan")}}, "permissions"),
    ({"permissions": b"{}"}, "permissions"),
    ({"permissions": "[" * 20_000}, "permissions"),
    ({"permissions": '{"a":"' + "x" * 70_000 + '"}'}, "permissions"),
    ({"key_label": ""}, "key_label"),
    ({"key_label": 7}, "key_label"),
    ({"key_label": "x" * 300}, "key_label"),
    ({"eph_alg": "rsa"}, "eph_alg"),
    ({"eph_alg": 5}, "eph_alg"),
    ({"eph_alg": []}, "eph_alg"),
    ({"eph_id": ""}, "eph_id"),
    ({"eph_id": 5}, "eph_id"),
    ({"eph_id": "\ud800"}, "eph_id"),
    ({"ephemeral_key": SECRET[:-2]}, "ephemeral_key"),
    ({"ephemeral_key": SECRET[:-1] + "g"}, "ephemeral_key"),
    ({"ephemeral_key": 5}, "ephemeral_key"),
    ({"ephemeral_key": "00" * 32}, "ephemeral_key"),
    ({"ephemeral_key": EphemeralKey.generate(), "eph_alg": "ed25519"}, "eph_alg"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": -1.0}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"timeout": float("nan")}, "timeout"),
    ({"timeout": float("inf")}, "timeout"),
    ({"timeout": "5"}, "timeout"),
    ({"timeout": "5", "duration": 0}, "duration"),
    ({"timeout": "5", "smart_account_client": 3}, "timeout"),
    ({"wallet": "0xabc"}, "wallet"),
    ({"wallet": CallbackWallet}, "wallet"),
    ({"browser_wallet": OTHER_WALLET}, "browser_wallet"),
    ({"browser_wallet": 3}, "browser_wallet"),
    ({"smart_account_client": 3}, "smart_account_client"),
    ({"smart_account_client": {"signer": 1}}, "smart_account_client"),
    ({"hardcoded_values": {"mpcKeyId": "x"}}, "hardcoded_values: mpcKeyId"),
    ({"hardcoded_values": {"duration": 5}}, "hardcoded_values: duration"),
    ({"hardcoded_values": {3: 5}}, "hardcoded_values"),
    ({"hardcoded_values": []}, "hardcoded_values"),
    ({"hardcoded_values": {"threshold": 1}}, "threshold"),
    ({"hardcoded_values": {"threshold": True}}, "threshold"),
    ({"hardcoded_values": {"partiesNumber": "3"}}, "parties_number"),
    ({"hardcoded_values": {"chainId": 0}}, "chain_id"),
    ({"hardcoded_values": {"chainId": 5}, "chain_id": 6}, "chain_id"),
    ({"hardcoded_values": {"hexEphSKWithout0x": "0x" + SECRET}}, "hex_eph_sk_without_0x"),
    ({"hardcoded_values": {"hexEphSKWithout0x": SECRET[:-2]}}, "hex_eph_sk_without_0x"),
    ({"hardcoded_values": {"eoaAddress": "0x12"}}, "eoa_address"),
    ({"hardcoded_values": {"eoaAddress": OTHER_WALLET.address}}, "eoa_address"),
    ({"hardcoded_values": {"eoaAddress": "0x7E5F4552091A69125d5DfCb7b8C2659029395BdF"}}, "eoa_address"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG, ids=[f"{i}-{f}" for i, (_, f) in enumerate(WRONG)])
async def test_wrong_values_are_refused_before_anything_is_sent(nodes: Nodes, wrong: Any, field: str) -> None:
    """One clear error that names the field and repeats no secret; not a byte leaves."""
    with pytest.raises(ConfigurationError) as caught:
        await nodes.client.generate_session_key(**({"wallet": WALLET, "chain_id": 1} | wrong))
    assert field in str(caught.value)
    assert "5ec7e7" not in str(caught.value) + repr(caught.value)
    assert not nodes.fake.calls


async def test_nobody_to_ask(nodes: Nodes) -> None:
    """No wallet at all is an error that says what to give."""
    with pytest.raises(ConfigurationError, match="no wallet was given"):
        await nodes.client.generate_session_key(chain_id=1)
    with pytest.raises(ConfigurationError, match="no wallet was given"):
        await nodes.client.generate_session_key(smart_account_client=Account(signer=None), chain_id=1)


async def test_unknown_parameters_are_type_errors(nodes: Nodes) -> None:
    """A misspelt parameter is Python's own error."""
    with pytest.raises(TypeError, match="treshold"):
        await generate_session_key(smart_account_client=Account(), client=nodes.client, treshold=2)


async def test_the_client_must_be_a_client() -> None:
    """Passing something else as the client is named."""
    with pytest.raises(InvalidFieldError, match="client must be a DanClient"):
        await generate_session_key(smart_account_client=Account(), client="wss://dan.example")
    with pytest.raises(
        InvalidFieldError, match=r"network must be a network.*DanClient\.connect\(\) takes a URL"
    ):
        DanClient("wss://dan.example")
    with pytest.raises(InvalidFieldError, match="network must be a network"):
        DanClient(Devnet)  # type: ignore[arg-type]


def test_a_client_is_neither_pickled_nor_copied() -> None:
    """Whoever hands one to a process pool reads what to do instead."""
    client = DanClient(Devnet())
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied: make one in each process"):
            attempt(client)


async def test_a_wallet_that_refuses(nodes: Nodes) -> None:
    """The owner says no: that error, no keygen, and the client works on."""

    async def refuse(typed_data: Any) -> str:
        raise WalletRefusedError("the owner said no")

    with pytest.raises(WalletRefusedError):
        await nodes.client.generate_session_key(wallet=CallbackWallet(OWNER, refuse), chain_id=1)
    assert not nodes.fake.called("dan_keygen")
    await nodes.client.generate_session_key(wallet=WALLET, chain_id=1)


async def test_a_wallet_that_does_not_answer(nodes: Nodes) -> None:
    """The wallet's own time limit ends the wait."""
    import asyncio

    async def ponder(typed_data: Any) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(WalletTimeoutError):
        await nodes.client.generate_session_key(wallet=CallbackWallet(OWNER, ponder), chain_id=1)
    assert not nodes.fake.called("dan_keygen")


async def test_a_wallet_that_signs_for_another(nodes: Nodes) -> None:
    """A signature of another address is not sent to anyone."""
    wallet = CallbackWallet(OWNER, OTHER_WALLET.sign_typed_data)
    with pytest.raises(WrongSignerError):
        await nodes.client.generate_session_key(wallet=wallet, chain_id=1)
    assert not nodes.fake.called("dan_keygen")


async def test_a_closed_client(nodes: Nodes) -> None:
    """After aclose() every call says so."""
    await nodes.client.aclose()
    with pytest.raises(ClientClosedError):
        await nodes.client.generate_session_key(wallet=WALLET, chain_id=1)


async def test_what_the_wallet_is_shown(nodes: Nodes) -> None:
    """The prompt is gateway revision 1's typed data: the claim and a 64-digit challenge, never the permissions."""
    shown: list[Any] = []

    async def look(typed_data: Any) -> str:
        shown.append(typed_data)
        return await WALLET.sign_typed_data(typed_data)

    await nodes.client.generate_session_key(
        wallet=CallbackWallet(OWNER, look), chain_id=1, permissions={"permissions": []}
    )
    message = shown[0]["message"]
    assert shown[0]["primaryType"] == "Request"
    assert [entry["tag"] for entry in message["setup"]["metadata"]] == [2]
    assert len(bytes.fromhex(message["challenge"])) == 32
    assert json.loads(json.dumps(shown[0])) == shown[0]


async def test_the_report_says_who_holds_a_share(nodes: Nodes) -> None:
    """on_report gets every participant's outcome, with attempts and timings, once and before the payload."""
    lost: list[Any] = []

    async def lose_first(method: str, params: Any) -> Any:
        if method == "dan_keygen" and not lost:
            lost.append(params)
            raise ConnectionLostError("cut")

    nodes.fake.misbehaviour[nodes.fake.operator(2)] = lose_first
    reports: list[KeygenReport] = []
    payload = await nodes.client.generate_session_key(wallet=WALLET, chain_id=1, on_report=reports.append)
    (report,) = reports
    assert report.key_id == payload.mpc_key_id
    assert report.holders == tuple(identity.operator for identity in nodes.fake.identities)
    assert [outcome.attempts for outcome in report.outcomes] == [1, 2, 1]
    assert {outcome.step for outcome in report.outcomes} == {"keygen"}
    assert (report.restarts, report.replaced) == (0, ())
    timings = report.timings
    steps = timings.challenge_s + timings.wallet_s + timings.keygen_s
    assert 0 < timings.keygen_s < steps <= timings.total_s
    assert payload.hex_eph_sk_without_0x not in report.describe() + repr(report)
    assert all(operator in report.describe() for operator in report.holders)


async def test_a_broken_listener_does_not_lose_the_key(nodes: Nodes, caplog: Any) -> None:
    """What on_report raises is logged; the payload comes all the same."""

    def broken(report: KeygenReport) -> None:
        raise ZeroDivisionError

    payload = await nodes.client.generate_session_key(wallet=WALLET, chain_id=1, on_report=broken)
    assert payload.parties_number == 3
    assert "on_report failed" in caplog.text


async def _async_listener(report: KeygenReport) -> None: ...


@pytest.mark.parametrize(
    "options", [{"on_report": 5}, {"on_report": _async_listener}, {"allow_resign": 1}, {"allow_resign": None}]
)
async def test_wrong_options_of_the_call(nodes: Nodes, options: dict[str, Any]) -> None:
    """They are named, and nothing is sent."""
    (name,) = options
    with pytest.raises(InvalidFieldError, match=f"^{name} must be"):
        await nodes.client.generate_session_key(wallet=WALLET, chain_id=1, **options)
    assert not nodes.fake.calls


@pytest.mark.parametrize("allowed", [False, True])
async def test_whether_a_person_is_asked_twice(allowed: bool) -> None:
    """A first round that fails after the signature: with allow_resign a second prompt, without it an error that says so."""
    nodes = Nodes()
    prompts: list[Any] = []

    async def prompt(typed_data: Any) -> str:
        prompts.append(typed_data)
        return await WALLET.sign_typed_data(typed_data)

    async def fail_once(method: str, params: Any) -> Any:
        if method == "dan_keygen" and len(prompts) == 1:
            raise RpcError(-32030, "a peer was silent")

    for identity in nodes.fake.identities:
        nodes.fake.misbehaviour[identity.operator] = fail_once
    wallet = CallbackWallet(WALLET.address, prompt, interactive=True)
    asking = nodes.client.generate_session_key(wallet=wallet, chain_id=1, allow_resign=allowed)
    if allowed:
        assert (await asking).parties_number == 3
    else:
        with pytest.raises(QuorumError, match="allow_resign=True"):
            await asking
    assert len(prompts) == (2 if allowed else 1)
    await nodes.client.aclose()
