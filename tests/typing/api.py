"""
The public API as a caller writes it. Checked by mypy, never run: a change that breaks a caller's types fails here.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, assert_type

from dan_async import (
    CallbackWallet,
    DanClient,
    DanError,
    DanModuleInfo,
    DanSessionKeyPayload,
    DanSessionKeyRequestParams,
    EphemeralKey,
    GatewayNetwork,
    JsonRpcWallet,
    LocalWallet,
    NodeEndpoint,
    NodeNetwork,
    RetryPolicy,
    Threshold,
    Timeouts,
    TransportOptions,
    generate_session_key,
    sign_message,
)
from dan_async.devnet import Delay, Devnet
from dan_async.errors import NodeOutcome, NodeRefusedError, QuorumError, RateLimitedError
from dan_async.events import AttemptFailed, Event, Verdict
from dan_async.jobs import PendingSessionKey
from dan_async.network import KeygenReport, Network, NetworkHealth, NodeState
from dan_async.nodes import RestPolicy, SigningOptions
from dan_async.otel import OpenTelemetryObserver
from dan_async.request import HardcodedValues, SessionKeyRequest
from dan_async.retry import DEFAULT_RETRY_TABLE, RetryDetails
from dan_async.storage import (
    FixedKeys,
    MemorySessionStore,
    SessionFilter,
    SessionStore,
    StoredSession,
    StoreKey,
)
from dan_async.storage.sqlalchemy_store import SQLAlchemyStore
from dan_async.types import Address, OperatorAddress, RequestId, TypedData
from dan_async.user_operation import UserOperationReceipt, UserOperationV07, user_operation_hash
from dan_async.userops import (
    AbiPolicy,
    AbiRule,
    Authorisation,
    BiconomyV2,
    Call,
    Erc20Policy,
    Nexus,
    SessionContracts,
    SessionSigner,
    SimpleAccount,
    SmartAccountClient,
    create_session_with_distributed_key,
    create_smart_account_client,
    grant_session_key,
    sign_user_operation,
)
from dan_async.userops.account_kinds import FactoryCall
from dan_async.wallets import Wallet


class Account:
    """A smart account client of the caller's own: no base class is needed."""

    def __init__(self, signer: Wallet) -> None:
        self.signer: Wallet | None = signer
        self.bundler_url: str | None = "https://bundler.example/api/v2/80002/key"
        self.chain_id: int | None = None

    async def get_address(self) -> str:
        return "0x0000000000000000000000000000000000000001"


class OwnWallet:
    """A wallet of the caller's own."""

    address = "0x0000000000000000000000000000000000000001"
    interactive = False

    async def sign_typed_data(self, typed_data: TypedData) -> str:
        return str(typed_data)


async def sign(typed_data: TypedData) -> str:
    return str(typed_data)


def wallets() -> list[Wallet]:
    """Everything that counts as a wallet."""
    return [
        OwnWallet(),
        LocalWallet("01" * 32),
        LocalWallet(bytes(32)),
        CallbackWallet("0x0000000000000000000000000000000000000001", sign),
        CallbackWallet("0x0000000000000000000000000000000000000001", sign, interactive=False),
        JsonRpcWallet("https://wallet.example", address="0x0000000000000000000000000000000000000001"),
    ]


def networks() -> list[Network]:
    """Every way to name nodes."""
    endpoint = NodeEndpoint("wss://node.example/v1/rpc", "0x0000000000000000000000000000000000000001")
    return [
        NodeNetwork([endpoint]),
        NodeNetwork(["wss://node.example/v1/rpc=0x0000000000000000000000000000000000000001"]),
        NodeNetwork(
            [{"url": endpoint.url, "operator": endpoint.operator}],
            threshold=Threshold(2, 3),
            rest=RestPolicy(first_s=0.5, longest_s=30),
            options=TransportOptions(
                ssl_context=ssl.create_default_context(),
                pins=["00" * 32, bytes(32)],
                proxy="http://proxy.example",
                headers={"authorization": "…"},
                max_message_bytes=65536,
                trust_env=False,
            ),
            timeouts=Timeouts(
                total_s=10, attempt_s=5, connect_s=2, wallet_s=60, grace_s=0.1, hedge_s=0.3, patience_s=2
            ),
            retry=RetryPolicy(attempts=2, first_wait_s=0.1, longest_wait_s=1),
        ),
    ]


async def keygen(network: NodeNetwork, wallet: Wallet, key: EphemeralKey) -> None:
    """The job, with everything it takes."""
    async with DanClient(network, timeouts=Timeouts(total_s=10)) as dan:
        assert_type(dan, DanClient)
        session = await dan.generate_session_key(wallet=wallet, chain_id=80002)
        assert_type(session, DanSessionKeyPayload)
        await dan.generate_session_key(
            smart_account_client=Account(wallet),
            browser_wallet=wallet,
            hardcoded_values={"threshold": 2, "partiesNumber": 3},
            duration=60,
            threshold=2,
            parties_number=3,
            min_parties=2,
            min_holders=3,
            permissions={"allowed": ["0x00"]},
            key_label="agent",
            eph_alg="ed25519",
            ephemeral_key=key,
            eph_id="one",
            timeout=5.0,
            allow_resign=True,
            on_report=look,
        )
        payload = await generate_session_key(smart_account_client=Account(wallet), client=dan, duration=60)
        assert_type(payload, DanSessionKeyPayload)
        health = await dan.network.health(timeout_s=1)
        assert_type(health, NetworkHealth)
        assert_type(health.live, int)
        assert_type(health.nodes[0].state, NodeState)
        assert_type(health.nodes[0].average_latency_s, float | None)


def look(report: KeygenReport) -> None:
    """Who holds a share, and where the time went."""
    assert_type(report.holders, tuple[OperatorAddress, ...])
    assert_type(report.outcomes[0].code, int | None)
    assert_type(report.timings.keygen_s, float)


async def devnet() -> None:
    """A network of one's own, in both ways."""
    async with Devnet(threshold=2, parties=3) as net, DanClient(net) as dan:
        assert_type(net.threshold, Threshold)
        assert_type(net.endpoints, tuple[NodeEndpoint, ...])
        assert_type(net.network(), NodeNetwork)
        await net.nodes[0].stop()
        await net.nodes[0].start()
        await dan.generate_session_key(wallet=LocalWallet("01" * 32), chain_id=80002)
    async with DanClient(Devnet()) as dan:
        await dan.aclose()


def payload(session: DanSessionKeyPayload, data: dict[str, Any]) -> None:
    """A session's fields, and its way through JSON."""
    assert_type(session.to_dict(extended=True), dict[str, Any])
    assert_type(DanSessionKeyPayload.from_dict(data), DanSessionKeyPayload)
    assert_type(DanModuleInfo.from_dict(data), DanModuleInfo)
    assert_type(session.threshold, int)
    assert_type(session.parties_number, int)
    text: str = session.session_key_eoa + session.mpc_key_id + session.hex_eph_sk_without_0x
    del text


def known(info: DanModuleInfo) -> None:
    """What every form of a session has."""
    assert_type(info.threshold, int | None)


def plain_text(signature: bytes) -> None:
    """Addresses and ids are plain text wherever a caller gives them, and say what they are where we do."""
    text = "0x0000000000000000000000000000000000000001"
    session = DanSessionKeyPayload(
        session_key_eoa=text,
        mpc_key_id="00" * 32,
        hex_eph_sk_without_0x="01" * 32,
        parties_number=3,
        threshold=2,
        eoa_address=text,
        chain_id=1,
    )
    assert_type(session.session_key_eoa, Address)
    DanModuleInfo(
        session_key_eoa=text, mpc_key_id="00" * 32, hex_eph_sk_without_0x="01" * 32, eoa_address=text
    )
    HardcodedValues(eoa_address=text)
    StoredSession(
        record_id="0x" + "00" * 32,
        owner=text,
        chain_id=1,
        state="active",
        expires_at=0,
        created_at=0,
        updated_at=0,
        session=session,
    )
    SessionFilter(owner=text)
    assert_type(Call(text, 0, b"").target, Address)
    operation = UserOperationV07(
        sender=text,
        factory=text,
        paymaster=text,
        nonce=0,
        call_data=b"",
        call_gas_limit=0,
        verification_gas_limit=0,
        pre_verification_gas=0,
        max_fee_per_gas=0,
        max_priority_fee_per_gas=0,
        signature=signature,
    )
    assert_type(operation.sender, Address)
    assert_type(operation.paymaster, Address | None)
    SimpleAccount(factory=text)
    BiconomyV2(factory=text, module=text)
    BiconomyV2.enable_module(text, text)
    Nexus(factory=text, implementation=text).install_validator(text, text, b"")
    Authorisation(chain_id=1, address=text, nonce=0, signature=text)
    AbiPolicy(target=text, function="transfer(address,uint256)", rules=[AbiRule(0, "==", text)])
    SessionContracts(manager=text)
    FactoryCall(factory=text, data=b"", address_function="f()", address_arguments=())
    LocalWallet("01" * 32)
    user_operation_hash(operation, entry_point=text, chain_id=1, version="v0.7.0")


async def time_spans(dan: DanClient, session: DanSessionKeyPayload, wallet: Wallet) -> None:
    """A timedelta is taken wherever seconds are."""
    minute = timedelta(minutes=1)
    assert_type(Timeouts(total_s=minute, grace_s=minute).total_s, float)
    RetryPolicy(first_wait_s=minute)
    RestPolicy(first_s=minute)
    SigningOptions(stock_s=minute)
    TransportOptions(heartbeat_s=minute, pong_s=minute)
    Delay(seconds=minute, jitter_s=minute)
    JsonRpcWallet("https://wallet.example", address="0x", timeout_s=minute)
    await dan.generate_session_key(wallet=wallet, duration=minute, timeout=minute)
    await dan.sign_message("hello", session, timeout=minute)
    await dan.revoke_ephemeral_key(session, wallet=wallet, timeout=minute)
    await dan.recover(min_age_s=minute, timeout=minute)
    await dan.network.health(timeout_s=minute)
    SQLAlchemyStore("sqlite:///keys.db", FixedKeys([]), lock_wait_s=minute, answer_wait_s=minute)


async def batches(dan: DanClient, session: DanSessionKeyPayload) -> list[DanSessionKeyPayload]:
    """Results are narrowed by looking at what there is."""
    made: list[DanSessionKeyPayload] = []
    async for item in dan.generate_session_keys([]):
        if item.error is None:
            made.append(item.session)
            assert_type(item.session, DanSessionKeyPayload)
        else:
            assert_type(item.error, Exception)
            assert_type(item.status, Literal["failed"])
    async for signed in dan.sign_many([], session):
        if signed.signature is None:
            raise signed.error
        assert_type(signed.signature, str)
    return made


def params(wallet: Wallet) -> DanSessionKeyRequestParams:
    """The seed's request as a value."""
    return DanSessionKeyRequestParams(smart_account_client=Account(wallet), duration=60, chain_id=1)


async def stored(wallet: Wallet, network: NodeNetwork) -> list[DanSessionKeyPayload]:
    """Stores, recovering, and batches."""
    keys = FixedKeys([StoreKey.generate()])
    store: SessionStore = MemorySessionStore()
    async with SQLAlchemyStore("sqlite:///keys.db", keys) as kept, DanClient(network, store=kept) as dan:
        store = kept
        assert_type(dan.store, SessionStore)
        report = await dan.recover(min_age_s=60)
        assert_type(report.sessions, tuple[DanSessionKeyPayload, ...])
        assert_type(await kept.rotate_keys(), int)
        async for record in store.find(SessionFilter(state="active", chain_id=1)):
            assert_type(record, StoredSession)
            assert_type(record.session, DanSessionKeyPayload | None)
        assert_type(await store.get(RequestId("0x" + "00" * 32)), StoredSession | None)
        made: list[DanSessionKeyPayload] = []
        request = SessionKeyRequest(wallet=wallet, chain_id=1, reference="b")
        async with dan.generate_session_keys(
            [{"reference": "a"}, request], wallet=wallet, concurrency=8, resume=True
        ) as run:
            async for item in run:
                assert_type(item.index, int)
                if item.session is not None:
                    made.append(item.session)
        return made


def ephemeral() -> str:
    """Keys that are wiped when the block is left."""
    with EphemeralKey.generate("ed25519") as key:
        assert_type(key.public_key, bytes)
        return EphemeralKey.from_hex(key.to_hex(), "ed25519").default_id


def listening(nodes: list[NodeEndpoint]) -> None:
    """Events, as a function, an object or OpenTelemetry; waits."""

    def on_event(event: Event) -> None:
        assert_type(event.to_dict(), dict[str, Any])
        if isinstance(event, AttemptFailed):
            assert_type(event.code, int | None)
        elif isinstance(event, Verdict):
            assert_type(event.failed, tuple[OperatorAddress, ...])

    def before_sleep(details: RetryDetails) -> None:
        assert_type(details.wait_s, float)

    table = DEFAULT_RETRY_TABLE.but({NodeRefusedError: frozenset({-32012})})
    policy = RetryPolicy(table=table, before_sleep=before_sleep, longest_retry_after_s=5)
    network = NodeNetwork(nodes, retry=policy, on_event=on_event)
    GatewayNetwork("wss://gateway.example/v1", on_event=on_event)
    DanClient(network, on_event=OpenTelemetryObserver())
    network.observe(on_event)


async def acting(dan: DanClient, session: DanSessionKeyPayload, wallet: Wallet) -> None:
    """A smart account that a session signs for, and one whose owner is a wallet."""
    account = await create_smart_account_client(
        signer=SessionSigner(dan, session),
        bundler_url="https://bundler.example",
        rpc_url="https://chain.example",
        paymaster_url="https://paymaster.example",
        account=SimpleAccount("v0.6.0"),
    )
    assert_type(account, SmartAccountClient)
    async with account:
        sent = await account.send_user_operation([Call(account.entry_point, 1, b"")], lane="a")
        assert_type(await account.wait_for_receipt(sent, timeout=5), UserOperationReceipt)
    operation = UserOperationV07.from_dict({})
    assert_type(await sign_user_operation(operation, session, client=dan), UserOperationV07)
    assert_type(await dan.sign_user_operation(operation, session), UserOperationV07)
    owned = await create_smart_account_client(signer=wallet, bundler_url="https://bundler.example")
    policy = Erc20Policy(token="0x", recipient="0x", max_amount=1)
    agent = await create_session_with_distributed_key(owned, policy, client=dan, store=dan.store, threshold=2)
    assert_type(await agent.send_transaction(Call(account.entry_point)), UserOperationReceipt)
    assert_type((await agent.revoke(wallet=wallet)).is_complete, bool)
    await dan.generate_session_key(smart_account_client=owned)
    modern = await create_smart_account_client(
        signer=wallet, bundler_url="https://bundler.example", account=Nexus(is_delegated=True)
    )
    authorisation = await modern.authorise_delegation()
    assert_type(authorisation, Authorisation)
    granted = await grant_session_key(
        modern, session.session_key_eoa, set_up=True, authorisation=authorisation
    )
    assert_type(granted, UserOperationReceipt)
    modern.signed_by(SessionSigner(dan, session), kind=Nexus().for_sessions())


def handling(error: DanError) -> float | None:
    """What errors carry."""
    assert_type(error.nodes, Sequence[NodeOutcome[Any]])
    assert_type(error.retryable, bool)
    if isinstance(error, QuorumError):
        assert_type(error.threshold, int)
        return sum(outcome.elapsed_s for outcome in error.nodes)
    if isinstance(error, RateLimitedError):
        return error.retry_after
    if isinstance(error, NodeRefusedError):
        assert_type(error.code, int)
        assert_type(error.culprits, tuple[str, ...])
    return None


async def signing(dan: DanClient, session: DanSessionKeyPayload, typed_data: TypedData) -> None:
    """A message in each of its forms, with a session in each of its forms."""
    assert_type(await dan.sign_message("hello", session), str)
    assert_type(await dan.sign_message(b"hello", session.to_dict(), timeout=5), str)
    assert_type(await dan.sign_message(typed_data, DanModuleInfo.from_dict(session.to_dict())), str)
    assert_type(await dan.sign_message(bytes(32), session, request_type="rawBytes"), str)
    assert_type(await sign_message("hello", session, client=dan), str)
    NodeNetwork([], signing=SigningOptions(stock=0))


async def two_steps(dan: DanClient, owner: str, signature: str) -> None:
    """An owner whose wallet is in a browser; and a session for as long as a context."""
    pending = await dan.begin_session_key(owner=owner, chain_id=80002, duration=600, reference="ada")
    assert_type(pending, PendingSessionKey)
    assert_type(pending.to_json(), str)
    session = await dan.complete_session_key(pending.id, signature, timeout=10)
    assert_type(session, DanSessionKeyPayload)
    assert_type(await dan.cancel_session_key(pending.id), bool)
    await dan.begin_session_key(owner=owner, wallet=None)  # type: ignore[call-arg]  # there is none here
    async with dan.session(wallet=LocalWallet("01" * 32), chain_id=80002) as live:
        assert_type(await live.sign_message("hello"), str)
        async for result in live.sign_many(["one", "two"]):
            assert_type(result.signature, str | None)
