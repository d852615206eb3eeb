"""Sessions that renew themselves, and many signatures at a time, over real nodes."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest

from dan_async import (
    CallbackWallet,
    DanClient,
    DanModuleInfo,
    DanSessionKeyPayload,
    Devnet,
    GatewayNetwork,
    LocalWallet,
    RetryPolicy,
    Threshold,
    Timeouts,
)
from dan_async.errors import (
    ConfigurationError,
    EphemeralKeyRefusedError,
    InvalidFieldError,
    QuorumError,
    SessionExpiredError,
    WalletRefusedError,
)
from dan_async.live_session import LiveSession
from dan_async.storage import MemorySessionStore, StoredSession
from dan_async.types import RequestId
from tests.helpers import ManualClock, no_leaks, run_in_virtual_time
from tests.stored import session

WALLET = LocalWallet("11" * 32)

#: Where virtual time begins.
START = 1000.0


class TestRenewal:
    """When a session is renewed, in virtual time."""

    @staticmethod
    def keep(renew: Any, *, lasts_s: int, seen: list[Any], duration_s: int = 3600) -> None:
        async def work(clock: ManualClock) -> None:
            live = LiveSession(
                session(expires_at=int(clock()) + duration_s),
                lambda old: renew(old, clock),
                client=None,
                duration_s=duration_s,
                on_renewed=lambda new: seen.append((round(clock() - START), new)),
                clock=clock,
            )
            async with live:
                await asyncio.sleep(lasts_s)
                seen.append(live)

        run_in_virtual_time(work)

    def test_ten_minutes_before_its_end(self) -> None:
        """Again and again, each time with a new end."""
        seen: list[Any] = []

        async def renew(old: DanModuleInfo, clock: ManualClock) -> DanModuleInfo:
            return session(expires_at=int(clock()) + 3600)

        self.keep(renew, lasts_s=9100, seen=seen)
        assert [at for at, _ in seen[:-1]] == [3000, 6000, 9000]
        assert seen[-1].session is seen[-2][1]

    @pytest.mark.parametrize(
        "failure", [QuorumError("no", threshold=2, outcomes=[]), OSError("a store of the caller's own")]
    )
    def test_a_failure_is_tried_again(self, failure: Exception) -> None:
        """With pauses that grow; meanwhile the old session is there, and why it failed."""
        seen: list[Any] = []
        tries: list[float] = []

        async def renew(old: DanModuleInfo, clock: ManualClock) -> DanModuleInfo:
            tries.append(clock() - START)
            if len(tries) < 4:
                raise failure
            return session(expires_at=int(clock()) + 3600)

        self.keep(renew, lasts_s=3100, seen=seen)
        assert [round(at) for at in tries] == [3000, 3001, 3003, 3007]
        assert seen[-1].failure is None

    def test_it_ends_with_the_session(self) -> None:
        """Nothing is tried any more when it has expired."""
        seen: list[Any] = []
        tries: list[float] = []

        async def renew(old: DanModuleInfo, clock: ManualClock) -> DanModuleInfo:
            tries.append(clock() - START)
            raise QuorumError("no", threshold=2, outcomes=[])

        self.keep(renew, lasts_s=10_000, seen=seen, duration_s=400)
        assert (round(tries[0]), tries[-1] < 400) == (300, True)
        assert isinstance(seen[-1].failure, QuorumError)


async def test_a_session_is_renewed_on_the_nodes_and_in_the_store() -> None:
    """The new ephemeral key signs, the one before as well until it ends; the record is the new one."""
    store, renewed = MemorySessionStore(), asyncio.Event()
    async with no_leaks(), Devnet(2, 3) as net, DanClient(net.network(), store=store) as dan:
        first = await dan.generate_session_key(wallet=WALLET, chain_id=1, duration=timedelta(seconds=4))
        (record,) = [record async for record in store.find()]
        keeping = dan.keep_alive(
            first,
            wallet=WALLET,
            duration=timedelta(hours=1),
            record_id=record.record_id,
            on_renewed=lambda _: renewed.set(),
        )
        async with asyncio.timeout(10), keeping as live:
            await renewed.wait()
            assert live.session.hex_eph_sk_without_0x != first.hex_eph_sk_without_0x
            assert live.session.session_key_eoa == first.session_key_eoa
            assert await dan.sign_message("new", live.session)
            kept = await store.get(record.record_id)
            assert kept is not None
            assert (kept.session, kept.expires_at) == (live.session, live.session.expires_at)


async def test_nobody_is_asked_unasked() -> None:
    """A wallet with a prompt is refused, unless that is allowed; so is what cannot be renewed."""

    async def prompt(_: Any) -> str:
        raise WalletRefusedError("no")

    person = CallbackWallet(WALLET.address, prompt)
    async with no_leaks(), Devnet(2, 3) as net, DanClient(net.network()) as dan:
        made = await dan.generate_session_key(wallet=WALLET, chain_id=1, duration=60)
        with pytest.raises(InvalidFieldError, match="asks a person"):
            dan.keep_alive(made, wallet=person)
        async with dan.keep_alive(made, wallet=person, may_prompt=True):
            pass
        with pytest.raises(ConfigurationError, match="has no expiry"):
            dan.keep_alive(DanModuleInfo.from_dict(made.to_dict()), wallet=WALLET)
        with pytest.raises(SessionExpiredError):
            async with dan.keep_alive(session(expires_at=1), wallet=WALLET):
                pass
        with pytest.raises(ConfigurationError, match="no store"):
            dan.keep_alive(made, wallet=WALLET, record_id="0x" + "00" * 32)


@pytest.mark.parametrize("kept", [True, False], ids=["store", "no store"])
@pytest.mark.parametrize("renews", [pytest.param(True, marks=pytest.mark.long), False])
async def test_a_session_for_as_long_as_a_context(kept: bool, renews: bool) -> None:
    """It signs, is renewed, and its ephemeral key is revoked at the end, whatever ended it."""
    store, renewed = MemorySessionStore() if kept else None, asyncio.Event()
    async with no_leaks(), Devnet(2, 3) as net, DanClient(net.network(), store=store) as dan:
        with pytest.raises(ZeroDivisionError):
            async with dan.session(
                wallet=WALLET,
                chain_id=1,
                duration=8 if renews else 3600,
                on_renewed=lambda _: renewed.set(),
            ) as live:
                first = live.session
                if renews:
                    async with asyncio.timeout(20):
                        await renewed.wait()
                assert renews == (live.session != first)
                assert await live.sign_message("one")
                assert [r.is_success async for r in live.sign_many(["two", "three"])] == [True, True]
                assert not live.is_revoked
                _ = 1 / 0
        assert (live.is_revoked, live.failure) == (True, None)
        with pytest.raises(EphemeralKeyRefusedError):
            await live.sign_message("four")
        if store is not None:
            assert [r.state async for r in store.find() if r.session == live.session] == ["revoked"]
        async with dan.session(wallet=WALLET, chain_id=1, revoke=False) as live:
            pass
        assert await live.sign_message("still")


async def test_a_person_is_asked_once_for_a_session() -> None:
    """To make it; to renew and to revoke it only if that is allowed."""
    asked: list[Any] = []

    async def prompt(typed_data: Any) -> str:
        asked.append(typed_data["message"])
        return await WALLET.sign_typed_data(typed_data)

    person = CallbackWallet(WALLET.address, prompt)
    async with no_leaks(), Devnet(2, 3) as net, DanClient(net.network()) as dan:
        async with dan.session(wallet=person, chain_id=1) as live:
            assert await live.sign_message("hello")
        assert (len(asked), live.is_revoked, live.failure) == (1, False, None)
        async with dan.session(wallet=person, chain_id=1, may_prompt=True) as live:
            pass
        assert (len(asked), live.is_revoked) == (3, True)
        for wrong in (
            {"revoke": 1},
            {"may_prompt": 1},
            {"on_renewed": 1},
            {"duration": 0},
            {"chain_id": None},
        ):
            with pytest.raises(InvalidFieldError, match=next(iter(wrong))):
                async with dan.session(**{"wallet": person, "chain_id": 1} | wrong):
                    pass
        assert len(asked) == 3


@pytest.mark.parametrize("over", ["nodes", "a gateway"])
async def test_a_session_that_cannot_be_revoked(over: str, caplog: pytest.LogCaptureFixture) -> None:
    """Two of three nodes are away, or the gateway's revision has no revoking: it is said, and not raised."""
    async with no_leaks(), Devnet(2, 3) as net:
        network = (
            net.network(timeouts=Timeouts(attempt_s=1), retry=RetryPolicy(attempts=1))
            if over == "nodes"
            else GatewayNetwork(net.gateway_url, revision="0.3", threshold=Threshold(2, 3))
        )
        async with DanClient(network) as dan:
            async with dan.session(wallet=WALLET, chain_id=1) as live:
                if over == "nodes":
                    await net.nodes[0].stop()
                    await net.nodes[1].stop()
            assert not live.is_revoked
            assert isinstance(live.failure, QuorumError if over == "nodes" else InvalidFieldError)
            assert f"{live.session.session_key_eoa} could not be revoked" in caplog.text


async def test_a_store_that_fails_hides_no_error_of_the_block() -> None:
    """Whatever a store of the caller's own raises when the session is to be revoked, it is noted."""

    class Broken(MemorySessionStore):
        async def get(self, record_id: RequestId) -> StoredSession | None:
            raise OSError("no such disk")

    async with Devnet(2, 2) as net, DanClient(net.network(), store=Broken()) as dan:
        with pytest.raises(LookupError):
            async with dan.session(wallet=WALLET, chain_id=1) as live:
                raise LookupError
        assert isinstance(live.failure, OSError)


async def test_many_messages() -> None:
    """Each has its signature; one that cannot be signed costs no other; leaving early leaves nothing."""
    async with no_leaks(), Devnet(2, 3) as net, DanClient(net.network()) as dan:
        made = await dan.generate_session_key(wallet=WALLET, chain_id=1)
        messages = ["a", b"b", 7, "d"]
        found = {r.index: r async for r in dan.sign_many(messages, made, concurrency=2)}
        assert [found[i].is_success for i in range(4)] == [True, True, False, True]
        assert isinstance(found[2].error, InvalidFieldError)
        assert len({found[i].signature for i in (0, 1, 3)}) == 3
        assert "message" not in repr(found[0])
        with pytest.raises(InvalidFieldError, match="messages must be something to iterate over, not str"):
            dan.sign_many("one", made)
        async with dan.sign_many((str(i) for i in range(1000)), made, concurrency=2) as run:
            async for result in run:
                assert result.is_success
                break


def test_a_session_as_json() -> None:
    """The extended form by default, so that it can be kept alive; the seven fields on request."""
    made = session()
    text = made.to_json()
    assert DanSessionKeyPayload.from_json(text) == made
    assert "expiresAt" not in json.loads(made.to_json(extended=False))
    for wrong in ("", "[1]", "{", "\ud800", 7, '{"a": "' + made.hex_eph_sk_without_0x + '"}', "[" * 100_000):
        with pytest.raises(InvalidFieldError) as caught:
            DanSessionKeyPayload.from_json(wrong)  # type: ignore[arg-type]
        assert made.hex_eph_sk_without_0x not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [timedelta(0), timedelta(milliseconds=1500), timedelta(days=400), "1h", 1.5]
)
async def test_durations_that_are_none(wrong: Any) -> None:
    """Whole seconds within bounds, as a number or a timedelta."""
    async with DanClient.connect("devnet://2-of-2") as dan:
        with pytest.raises(InvalidFieldError, match="duration"):
            await dan.generate_session_key(wallet=WALLET, chain_id=1, duration=wrong)


async def test_an_unknown_parameter_of_a_session_is_named() -> None:
    """As in a batch, and not as an argument of a class that nobody has called."""
    async with DanClient.connect("devnet://2-of-2") as dan:
        with pytest.raises(InvalidFieldError, match="chainid is not a parameter of generate_session_key"):
            async with dan.session(wallet=WALLET, chainid=1):  # type: ignore[call-arg]
                pass


async def test_a_client_shows_what_it_is() -> None:
    """Without secrets, and whether it is closed."""
    dan = DanClient.connect("wss://user:secret@gateway.example/v1")
    assert repr(dan).startswith("DanClient(GatewayNetwork('wss://gateway.example/v1'")
    await dan.aclose()
    assert repr(dan).endswith(", closed)")
