"""A request for a session key: its forms, and the order in which its values are checked before anything is sent."""

from __future__ import annotations

import inspect
import itertools
import pickle
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dan_async import (
    DanClient,
    DanSessionKeyRequestParams,
    EphemeralKey,
    LocalWallet,
    Timeouts,
    generate_session_key,
)
from dan_async.errors import ClientClosedError, ConfigurationError, InvalidFieldError, WalletError
from dan_async.request import HardcodedValues, SessionKeyRequest, prepare, read_request
from dan_async.storage import MemorySessionStore
from dan_async.wallets import PasskeyAuth
from tests.fake_nodes import FakeNetwork
from tests.helpers import error_of
from tests.passkeys.authenticator import ORIGIN, RP_ID, Authenticator

WALLET = LocalWallet("0x" + "00" * 31 + "01")
OTHER_WALLET = LocalWallet("0x" + "00" * 31 + "02")
KEY, OTHER_KEY = "5ec7e7" + "ab" * 29, "5ec7e7" + "cd" * 29
RIGHT: dict[str, Any] = {"wallet": WALLET, "chain_id": 1}


class Account:
    """A smart account client whose address nobody may ask for: these calls end before that."""

    def __init__(self, signer: Any = None) -> None:
        self.signer = signer
        self.bundler_url = None
        self.chain_id = None

    async def get_address(self) -> str:
        raise AssertionError


def passkey() -> PasskeyAuth:
    device = Authenticator()
    return PasskeyAuth(device.id, device.get, rp_id=RP_ID, origin=ORIGIN)


class Ephemeral:
    """An owner of a kind that cannot own a key."""

    method = "ephemeral"
    id = WALLET.address
    interactive = False


#: One wrong value each, in the order in which they are found: the field that the error names, its words, the value.
STEPS: list[tuple[str, str, dict[str, Any]]] = [
    ("allow_resign", "must be True or False", {"allow_resign": 1}),
    ("on_report", "must be a function", {"on_report": 3}),
    ("hardcoded_values: nope", "cannot be set", {"hardcoded_values": {"nope": 1}}),
    ("duration", "must be from 1", {"duration": 0}),
    ("timeout", "must be a number of seconds", {"timeout": 0}),
    ("smart_account_client", "is not a smart account client", {"smart_account_client": 3}),
    ("wallet", "is not a wallet", {"wallet": "0xabc"}),
    ("wallet", "is not a wallet", {"wallet": LocalWallet}),
    (
        "hardcoded_values: eoa_address",
        "is not the wallet's address",
        {"hardcoded_values": {"eoa_address": OTHER_WALLET.address}},
    ),
    ("chain_id", "must be from 1", {"chain_id": 0}),
    ("parties_number", "must be from 2", {"parties_number": 1}),
    ("threshold", "must be from 2", {"threshold": 1}),
    ("min_parties", "must be from", {"min_parties": 1}),
    ("permissions", "is not JSON text", {"permissions": "{"}),
    ("key_label", "must be 1 to 256 characters", {"key_label": ""}),
    ("eph_id", "must be 1 to 256 characters", {"eph_id": ""}),
    ("eph_alg", "must be 'secp256k1' or 'ed25519'", {"eph_alg": "rsa"}),
    ("ephemeral_key", "must be an EphemeralKey", {"ephemeral_key": 5}),
    ("parties_number", "asks for 4 nodes, but the network has 3", {"parties_number": 4}),
    ("reference", "must be 1 to 200 characters", {"reference": ""}),
    ("reference", "needs a store", {"reference": "row 1"}),
]

PAIRS = [
    pytest.param(field, words, first | second, id=f"{i}-{field}-before-{j}-{other}")
    for (i, (field, words, first)), (j, (other, _, second)) in itertools.combinations(enumerate(STEPS), 2)
    if not first.keys() & second.keys()
]

#: Values that belong together, found at the place of the first of them: the field, the words, the values.
TOGETHER = [
    ("hardcoded_values", "must be a mapping", {"hardcoded_values": [], "duration": 0}),
    ("eoa_address", "must be", {"hardcoded_values": {"chainId": 0, "eoaAddress": "0x12"}, "duration": 0}),
    (
        "hex_eph_sk_without_0x",
        "hex",
        {"hardcoded_values": {"threshold": 1, "hexEphSKWithout0x": "5a"}, "duration": 0},
    ),
    ("threshold", "must be from", {"hardcoded_values": {"partiesNumber": 1, "threshold": 1}, "duration": 0}),
    (
        "parties_number",
        "must be from",
        {"hardcoded_values": {"chainId": 0, "partiesNumber": 1}, "duration": 0},
    ),
    ("browser_wallet", "is given as well", {"wallet": "0xabc", "browser_wallet": 3, "chain_id": 0}),
    ("browser_wallet", "is not a wallet", {"wallet": None, "browser_wallet": 3, "chain_id": 0}),
    (
        "smart_account_client.signer",
        "is not a wallet",
        {"wallet": None, "smart_account_client": Account(3), "chain_id": 0},
    ),
    ("", "no wallet was given", {"wallet": None, "chain_id": 0}),
    ("wallet", "is given as well as auth", {"auth": 3, "chain_id": 0}),
    ("wallet", "is given as well as auth", {"wallet": None, "browser_wallet": 3, "auth": 3, "chain_id": 0}),
    ("auth", "must be an owner", {"wallet": None, "auth": 3, "chain_id": 0}),
    ("auth", "must be an owner", {"wallet": None, "auth": Ephemeral(), "chain_id": 0}),
    (
        "chain_id",
        "differs from the value in hardcoded_values",
        {"hardcoded_values": {"chainId": 5}, "chain_id": 0, "threshold": 1},
    ),
    ("chain_id", "cannot be inferred", {"chain_id": None, "threshold": 1}),
    (
        "threshold",
        "differs from the value in hardcoded_values",
        {"hardcoded_values": {"threshold": 2, "partiesNumber": 3}, "threshold": 3, "parties_number": 2},
    ),
    (
        "parties_number",
        "differs from the value in hardcoded_values",
        {"hardcoded_values": {"partiesNumber": 3}, "threshold": 1, "parties_number": 2, "min_parties": 1},
    ),
    ("threshold", "more than parties_number", {"threshold": 3, "parties_number": 2, "min_parties": 9}),
    (
        "ephemeral_key",
        "differs from the value in hardcoded_values",
        {"hardcoded_values": {"hexEphSKWithout0x": KEY}, "ephemeral_key": OTHER_KEY, "eph_alg": "rsa"},
    ),
]


async def by_the_client(network: FakeNetwork, parameters: dict[str, Any]) -> BaseException | None:
    async with DanClient(network.network()) as dan:
        return await error_of(dan.generate_session_key(**parameters))


async def by_the_function(network: FakeNetwork, parameters: dict[str, Any]) -> BaseException | None:
    """With an account that has nothing to say, where none is given."""
    async with DanClient(network.network()) as dan:
        given = {"smart_account_client": Account(), **parameters}
        return await error_of(generate_session_key(client=dan, **given))


async def by_a_batch(network: FakeNetwork, parameters: dict[str, Any]) -> BaseException | None:
    async with DanClient(network.network()) as dan:
        (result,) = [item async for item in dan.generate_session_keys([parameters])]
    return result.error


async def by_what_a_batch_shares(network: FakeNetwork, parameters: dict[str, Any]) -> BaseException | None:
    async with DanClient(network.network()) as dan:
        (result,) = [item async for item in dan.generate_session_keys([{}], **parameters)]
    return result.error


WAYS = [by_the_client, by_the_function, by_a_batch, by_what_a_batch_shares]


async def check(way: Any, given: dict[str, Any], field: str, words: str) -> None:
    network = FakeNetwork(2, 3)
    error = await way(network, given)
    assert isinstance(error, ConfigurationError)
    assert getattr(error, "field", "") == field
    assert words in str(error)
    assert "5ec7e7" not in str(error) + repr(error)
    assert network.calls == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("field", "words", "wrong"), STEPS)
async def test_each_wrong_value_is_found(
    way: Callable[..., Awaitable[Any]], field: str, words: str, wrong: dict[str, Any]
) -> None:
    """Whichever way it comes, and nothing is sent."""
    await check(way, RIGHT | wrong, field, words)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("field", "words", "wrong"), PAIRS)
async def test_of_two_wrong_values_the_earlier_is_named(
    way: Callable[..., Awaitable[Any]], field: str, words: str, wrong: dict[str, Any]
) -> None:
    """The order is a promise: a caller who corrects one value after the other sees them come one after the other."""
    await check(way, RIGHT | wrong, field, words)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("field", "words", "wrong"), TOGETHER)
async def test_values_that_belong_together(
    way: Callable[..., Awaitable[Any]], field: str, words: str, wrong: dict[str, Any]
) -> None:
    """Values that contradict each other are found at the place of the first of them."""
    await check(way, RIGHT | wrong, field, words)


async def test_a_passkey_needs_an_address_before_the_chain_is_looked_at() -> None:
    """Where neither the hardcoded values nor an account have one."""
    given = {"auth": passkey(), "chain_id": 0}
    await check(by_the_client, given, "eoa_address", "is needed with a passkey")


@pytest.fixture
async def closed() -> DanClient:
    client = DanClient(FakeNetwork(2, 3).network(), store=MemorySessionStore())
    await client.aclose()
    return client


@pytest.mark.parametrize(("field", "words", "wrong"), STEPS)
async def test_a_closed_client_says_so_first(
    closed: DanClient, field: str, words: str, wrong: dict[str, Any]
) -> None:
    """Before it looks at any value."""
    assert isinstance(await error_of(closed.generate_session_key(**RIGHT | wrong)), ClientClosedError)
    with pytest.raises(ClientClosedError):
        await anext(closed.generate_session_keys([RIGHT | wrong]))


async def test_a_batch_looks_at_names_first(closed: DanClient) -> None:
    """A request that is none, or has an unknown name, fails as such whatever its values and the client's state are."""
    requests = [7, {"chain_id": 0, "walet": WALLET}, {"chain_id": 0, 3: 4}]
    async with closed.generate_session_keys(requests) as run:
        errors = {item.index: str(item.error) async for item in run}
    assert errors[0].startswith("request must be a mapping")
    assert errors[1].startswith("walet is not a parameter of generate_session_key")
    assert errors[2].startswith("a name is not a parameter of generate_session_key")


async def test_a_resumed_batch_looks_at_references_first() -> None:
    """Then into its store: a session that is there is returned whatever else has become of its row."""
    network = FakeNetwork(2, 3)
    async with DanClient(network.network(), store=MemorySessionStore()) as dan:
        session = await dan.generate_session_key(**RIGHT, reference="row 1")
        given: list[dict[str, Any]] = [
            {"chain_id": 0},
            {"chain_id": 0, "reference": 5},
            {"chain_id": 0, "reference": "row 1"},
            {"chain_id": 0, "reference": "row 2"},
        ]
        found = {
            item.index: item async for item in dan.generate_session_keys(given, wallet=WALLET, resume=True)
        }
    for index, field in enumerate(["reference", "reference", None, "chain_id"]):
        error = found[index].error
        assert (error.field if isinstance(error, InvalidFieldError) else error) == field
    assert found[2].session == session
    assert found[2].status == "kept"


# --- what has to be asked for -----------------------------------------------------------------------------------------


class AskedAccount(Account):
    """A smart account client that notes when its address is asked for."""

    def __init__(self, answer: Any = WALLET.address) -> None:
        super().__init__()
        self.answer = answer
        self.asked = 0

    async def get_address(self) -> str:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


AFTER_THE_OWNER = [step for step in STEPS[8:] if step[0] != "hardcoded_values: eoa_address"]


@pytest.mark.parametrize(("field", "words", "wrong"), AFTER_THE_OWNER)
async def test_an_account_is_asked_when_all_else_is_right(
    field: str, words: str, wrong: dict[str, Any]
) -> None:
    """The address under which a passkey's session is filed comes from elsewhere, so it is the last thing to find out."""
    account = AskedAccount()
    given = {"auth": passkey(), "smart_account_client": account, "chain_id": 1}
    await check(by_the_client, given | wrong, field, words)
    assert account.asked == 0


@pytest.mark.parametrize(
    "more", [{"auth": None, "wallet": WALLET}, {"hardcoded_values": {"eoa_address": WALLET.address}}]
)
async def test_an_account_is_not_asked_for_an_address_that_is_known(more: dict[str, Any]) -> None:
    """A wallet is its own address, and a passkey's may be given."""
    account = AskedAccount()
    given = {"auth": passkey(), "smart_account_client": account, "chain_id": 1} | more
    prepared = await prepare(
        SessionKeyRequest(**given),
        FakeNetwork(2, 3).network(),
        timeouts=Timeouts(),
        clock=lambda: 1.8e9,
        has_store=False,
    )
    assert (prepared.owner, account.asked) == (WALLET.address, 0)


async def test_a_key_made_for_nothing_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the account fails, nobody needs the new ephemeral key; one that was given is the caller's."""
    wiped: list[EphemeralKey] = []

    def wipe(key: EphemeralKey) -> None:
        wiped.append(key)

    monkeypatch.setattr(EphemeralKey, "wipe", wipe)
    given = {"auth": passkey(), "smart_account_client": AskedAccount(OSError()), "chain_id": 1}
    for key, count in ((EphemeralKey.generate(), 0), (KEY, 1), (None, 2)):
        network = FakeNetwork(2, 3)
        assert isinstance(await by_the_client(network, given | {"ephemeral_key": key}), WalletError)
        assert len(wiped) == count


# --- the object -------------------------------------------------------------------------------------------------------


async def test_a_batch_takes_requests_in_every_form() -> None:
    """The object, TypeScript's object and a mapping; a request object is whole, so that nothing shared touches it."""
    account = AskedAccount()
    account.signer = WALLET
    given = [
        SessionKeyRequest(wallet=WALLET, chain_id=1),
        DanSessionKeyRequestParams(smart_account_client=account, chain_id=2),
        {"wallet": WALLET},
    ]
    async with DanClient(FakeNetwork(2, 3).network()) as dan:
        run = dan.generate_session_keys(given, chain_id=3, eph_alg="ed25519")
        found = {item.index: item.session async for item in run}
    assert [(s.chain_id, s.eph_alg) for _, s in sorted(found.items()) if s] == [
        (1, "secp256k1"),
        (2, "ed25519"),
        (3, "ed25519"),
    ]


def test_a_request_is_read_from_every_form() -> None:
    """By name and from TypeScript's object, over what is shared; a request is taken as it is."""
    given = {"wallet": WALLET, "chain_id": 1, "hardcoded_values": {"chainId": 1}}
    reference, make_request = read_request(given, {"chain_id": 2, "duration": 60, "reference": "r"})
    request = make_request()
    assert (reference, request) == ("r", SessionKeyRequest(**given, duration=60, reference="r"))
    assert request.hardcoded == HardcodedValues(chain_id=1)
    reference, make_request = read_request(request, {"duration": 90, "reference": "s"})
    assert (reference, make_request()) == ("r", request)
    params = DanSessionKeyRequestParams(smart_account_client=AskedAccount(), duration=60, chain_id=5)
    _, make_request = read_request(params, {"eph_id": "e", "chain_id": 6})
    assert make_request() == SessionKeyRequest(
        smart_account_client=params.smart_account_client,
        browser_wallet=None,
        hardcoded_values=HardcodedValues(),
        duration=60,
        chain_id=5,
        eph_id="e",
    )


@pytest.mark.parametrize("given", [7, None, [], "chain_id", {"walet": WALLET}, {"hardcoded": None}, {3: 4}])
def test_what_is_no_request_is_refused(given: Any) -> None:
    """Also a name that no parameter has."""
    with pytest.raises(InvalidFieldError):
        read_request(given, {})


def test_a_request_shows_no_secret() -> None:
    """Neither a key, nor the wallet, nor what was hardcoded."""
    request = SessionKeyRequest(
        wallet=WALLET, ephemeral_key=KEY, hardcoded_values={"hexEphSKWithout0x": KEY}, chain_id=1
    )
    assert "5ec7e7" not in repr(request)
    assert "wallet" not in repr(request).lower()


def test_a_request_has_the_parameters_of_the_client() -> None:
    """All of them, under the same names and with the same defaults."""
    parameters = inspect.signature(DanClient.generate_session_key).parameters
    assert inspect.signature(SessionKeyRequest).parameters.keys() == parameters.keys() - {"self"}
    defaults = {name: parameter.default for name, parameter in parameters.items() if name != "self"}
    assert SessionKeyRequest(**defaults) == SessionKeyRequest()


def test_a_request_can_be_sent_to_another_process() -> None:
    """It holds values, and no ephemeral key is made in it."""
    request = SessionKeyRequest(chain_id=1, hardcoded_values={"threshold": 2}, permissions={"a": [1]})
    assert pickle.loads(pickle.dumps(request)) == request
    assert request.ephemeral_key is None
