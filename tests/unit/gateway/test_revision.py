"""Finding out which revision a gateway speaks."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from dan_async import GatewayNetwork
from dan_async.config import Timeouts
from dan_async.devnet.gateway import accept
from dan_async.errors import DeadlineExceededError, GatewayError, InvalidFieldError
from tests.gateway_server import (
    KEY_ID,
    ONCE,
    QUICK,
    CountingWallet,
    Visit,
    challenge_frame,
    honest,
    keygen_request,
    make_claim,
    operate,
    result_frame,
    run,
    scripted,
    speaking,
)
from tests.helpers import assert_runs_under, error_of, no_leaks, wait_until


@pytest.mark.parametrize(("speaks", "tries"), [(("1",), 1), (("0.3",), 2), (("0.1", "0.3"), 2), ((), 1)])
async def test_the_revision_is_found_out_and_remembered(speaks: tuple[str, ...], tries: int) -> None:
    """The newest one that the gateway speaks; each try has a connection of its own, and the next operation needs none."""
    wallet = CountingWallet()
    async with no_leaks(), scripted(speaking(*speaks)) as gateway:
        network = GatewayNetwork(gateway.url(), retry=ONCE)
        assert network.revision is None
        assert (await operate(network, wallet=wallet)).key_id == KEY_ID
        assert len(gateway.visits) == tries
        assert wallet.asked == 1
        await operate(network, wallet=wallet)
        assert len(gateway.visits) == tries + 1
        await network.aclose()
    assert network.revision == ("1" if not speaks else max(speaks))
    assert [len(visit.frames) for visit in gateway.visits] == [1] * (tries - 1) + [2, 2]


@pytest.mark.parametrize(
    "how", ["close", "cut", "binary", "silence", "wrong form", "half a JSON"], ids=lambda how: how
)
async def test_ways_of_not_speaking_a_revision(how: str) -> None:
    """Whatever a gateway does with a setup it cannot read, the next revision is tried."""

    async def confused(visit: Visit) -> None:
        frame = await visit.receive()
        if accept("keygen", frame).protocol.revision == "0.3":
            await visit.send(challenge_frame(visit))
            await visit.receive()
            await visit.send(result_frame(visit))
        elif how == "close":
            await visit.leave(1011, "oops")
        elif how == "cut":
            visit.abort()
        elif how == "binary":
            await visit.socket.send_bytes(b"?")
        elif how == "wrong form":
            await visit.send("{}")
        elif how == "half a JSON":
            await visit.send('{"error":')
        await visit.gone()

    wallet = CountingWallet()
    async with no_leaks(), scripted(confused) as gateway, assert_runs_under(20):
        network = GatewayNetwork(gateway.url(), retry=ONCE, timeouts=Timeouts(attempt_s=0.3))
        await operate(network, wallet=wallet)
        await network.aclose()
    assert network.revision == "0.3"
    assert wallet.asked == 1
    assert len(gateway.visits) == 2


async def test_a_gateway_that_speaks_no_revision() -> None:
    """One error that tells what each try got; the wallet is not asked, and nothing is tried twice."""
    answers = iter([(1003, "no arrays"), (4400, "no claims")])

    async def refuse(visit: Visit) -> None:
        await visit.receive()
        await visit.leave(*next(answers))

    wallet = CountingWallet()
    async with no_leaks(), scripted(refuse) as gateway:
        error = await error_of(run(gateway, wallet=wallet, retry=QUICK))
    assert type(error) is GatewayError
    assert error.phase == "challenge"
    assert (error.close_code, error.close_reason) == (4400, "no claims")
    for part in ("revision 1:", "no arrays", "revision 0.3:", "code 4400: no claims"):
        assert part in error.message
    assert wallet.asked == 0
    assert len(gateway.visits) == 2
    assert not error.retryable


async def test_a_revision_whose_expiry_nobody_signs_is_never_found_out() -> None:
    """A gateway that refuses all others is asked in 0.1 only where that is named; the error says so."""
    wallet = CountingWallet()
    async with no_leaks(), scripted(speaking("0.1")) as gateway:
        error = await error_of(run(gateway, wallet=wallet))
        assert [accept("keygen", visit.frames[0]).protocol.revision for visit in gateway.visits] == [
            "1",
            "0.3",
        ]
        assert wallet.asked == 0
        assert (await run(gateway, revision="0.1", wallet=wallet)).key_id == KEY_ID
    assert type(error) is GatewayError
    assert "name it: 0.1 is never tried" in error.hint


async def test_revisions_that_cannot_carry_the_request_are_not_tried() -> None:
    """A secp256k1 key fits revision 1 only; the error says so for the others."""
    request = keygen_request(claim=make_claim("secp256k1"))
    async with no_leaks(), scripted(speaking("0.3")) as gateway:
        error = await error_of(run(gateway, request=request))
    assert type(error) is GatewayError
    assert "revision 0.3: eph_alg must be ed25519" in error.message
    assert len(gateway.visits) == 1


async def test_a_key_that_does_not_fit_what_was_found_is_refused() -> None:
    """After finding out, a request that the revision cannot carry is refused without a connection."""
    async with no_leaks(), scripted(speaking("0.3")) as gateway:
        network = GatewayNetwork(gateway.url())
        await operate(network)
        tried = len(gateway.visits)
        with pytest.raises(InvalidFieldError, match=r"eph_alg must be ed25519 in revision 0\.3"):
            await operate(network, request=keygen_request(claim=make_claim("secp256k1")))
        with pytest.raises(InvalidFieldError, match=r"does not exist in revision 0\.3"):
            await operate(network, "revokeEphemeralKey")
        await network.aclose()
    assert len(gateway.visits) == tried


@pytest.mark.parametrize("status", [401, 404, 503])
async def test_a_refused_upgrade_says_nothing_about_the_revision(status: int) -> None:
    """No other revision is tried: the first error is the right one."""
    async with no_leaks(), scripted(honest, upgrade=lambda _: web.Response(status=status)) as gateway:
        error = await error_of(run(gateway))
    assert type(error) is GatewayError
    assert (error.phase, error.status) == ("connect", status)
    assert len(gateway.requests) == 1


@pytest.mark.parametrize("code", [1012, 1013, 4408, 4502])
async def test_a_gateway_in_trouble_is_not_taken_for_an_older_one(code: int) -> None:
    """A close code about its own condition ends the search, so that no older revision is settled on by accident."""

    async def trouble(visit: Visit) -> None:
        await visit.receive()
        await visit.leave(code, "later")

    async with no_leaks(), scripted(trouble, honest) as gateway:
        error = await error_of(run(gateway))
        assert len(gateway.visits) == 1
        network = GatewayNetwork(gateway.url(), retry=QUICK)
        await operate(network)
        await network.aclose()
    assert type(error) is GatewayError
    assert error.close_code == code
    assert error.retryable
    assert network.revision == "1"


async def test_concurrent_first_calls_share_one_search() -> None:
    """Twenty keygens at once: one finds out, the others use it; each wallet is asked once."""
    wallets = [CountingWallet() for _ in range(20)]
    async with no_leaks(), scripted(speaking("0.3")) as gateway:
        network = GatewayNetwork(gateway.url())
        reports = await asyncio.gather(*(operate(network, wallet=wallet) for wallet in wallets))
        await network.aclose()
    assert {report.key_id for report in reports} == {KEY_ID}
    assert [wallet.asked for wallet in wallets] == [1] * 20
    assert len(gateway.visits) == 1 + 20


async def test_concurrent_first_calls_share_one_failure() -> None:
    """Those who waited for the search get its error too, each an object of its own, instead of searching again."""
    async with no_leaks(), scripted(speaking("none")) as gateway:
        network = GatewayNetwork(gateway.url(), retry=ONCE)
        errors = await asyncio.gather(*(error_of(operate(network)) for _ in range(10)))
        assert len(gateway.visits) == 2
        assert type(await error_of(operate(network))) is GatewayError
        assert len(gateway.visits) == 4
        await network.aclose()
    assert {type(error) for error in errors} == {GatewayError}
    assert len({id(error) for error in errors}) == 10


async def test_a_patient_call_does_not_share_the_failure_of_a_hasty_one() -> None:
    """A gateway that is slow has not answered the one that had little time; it answers the one that has more."""

    has_given_up = asyncio.Event()

    async def slow(visit: Visit) -> None:
        await visit.receive()
        await has_given_up.wait()
        await visit.send(challenge_frame(visit))
        await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    async with no_leaks(), scripted(slow) as gateway:
        network = GatewayNetwork(gateway.url(), retry=ONCE)
        hasty = asyncio.create_task(error_of(operate(network, total_s=0.9)))
        hasty.add_done_callback(lambda _: has_given_up.set())
        await wait_until(lambda: gateway.visits)
        assert (await operate(network)).key_id == KEY_ID
        assert type(await hasty) is GatewayError
        await network.aclose()
    assert network.revision == "1"


async def test_a_cancelled_search_is_taken_over() -> None:
    """The call that was finding out is cancelled: the next one in line finds out."""
    is_first = asyncio.Event()

    async def hang(visit: Visit) -> None:
        is_first.set()
        await visit.gone()

    async with no_leaks(), scripted(hang, honest) as gateway:
        network = GatewayNetwork(gateway.url())
        first = asyncio.create_task(operate(network))
        await is_first.wait()
        second = asyncio.create_task(operate(network))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).key_id == KEY_ID
        with pytest.raises(asyncio.CancelledError):
            await first
        await network.aclose()


async def test_waiting_for_a_search_has_a_deadline() -> None:
    """A call with little time does not wait for another one's search."""

    async def hang(visit: Visit) -> None:
        await visit.gone()

    async with no_leaks(), scripted(hang) as gateway:
        network = GatewayNetwork(gateway.url())
        first = asyncio.create_task(operate(network))
        await wait_until(lambda: gateway.visits)
        error = await error_of(operate(network, total_s=0.1))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await network.aclose()
    assert type(error) is DeadlineExceededError


async def test_the_time_to_connect_is_not_spent_twice() -> None:
    """The challenge is waited for in what is left after the connection was made, so that the deadline holds."""

    async def hang(visit: Visit) -> None:
        await visit.gone()

    async def slow(_: web.Request) -> None:
        await asyncio.sleep(0.6)

    async with no_leaks(), scripted(hang, upgrade=slow) as gateway:
        started = time.monotonic()
        error = await error_of(run(gateway, revision="0.3", total_s=1.0))
    assert time.monotonic() - started < 1.4
    assert type(error) is DeadlineExceededError
    assert error.phase == "challenge"


async def test_a_gateway_that_changes_is_found_out_again() -> None:
    """It refuses the revision it used to speak: the next attempt looks for another one."""
    async with no_leaks(), scripted(speaking("1"), speaking("0.3")) as gateway:
        network = GatewayNetwork(gateway.url(), retry=ONCE)
        await operate(network)
        assert network.revision == "1"
        assert type(await error_of(operate(network))) is GatewayError
        await operate(network)
        await network.aclose()
    assert network.revision == "0.3"


async def test_a_revision_that_was_told_is_not_found_out() -> None:
    """The caller's word counts: one connection, one error."""
    async with no_leaks(), scripted(speaking("0.3")) as gateway:
        error = await error_of(run(gateway, revision="1"))
    assert type(error) is GatewayError
    assert len(gateway.visits) == 1


async def test_one_shot_is_never_found_out() -> None:
    """A gateway that does not do v1 is not asked for v2."""
    async with no_leaks(), scripted(speaking("none")) as gateway:
        await error_of(run(gateway))
    assert {visit.version for visit in gateway.visits} == {"v1"}
