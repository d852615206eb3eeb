"""One operation at a gateway: what is done again and what is not, challenges, and what errors show."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from dan_async import GatewayNetwork
from dan_async.config import Timeouts, TransportOptions
from dan_async.deadline import Deadline
from dan_async.errors import ChallengeError, DanError, DeadlineExceededError, GatewayError
from dan_async.gateway.operation import SeenChallenges
from dan_async.retry import RetryPolicy
from tests.gateway_server import (
    KEY_ID,
    ONCE,
    QUICK,
    REQUEST_ID,
    CountingWallet,
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
from tests.helpers import assert_runs_under, error_of, no_leaks

# --- retries ----------------------------------------------------------------------------------------------------------


async def abort(visit: Visit) -> None:
    visit.abort()


async def leave(visit: Visit) -> None:
    await visit.leave(1012, "restarting")


@pytest.mark.parametrize("move", [abort, leave])
@pytest.mark.parametrize("at", [at_challenge, at_wallet])
async def test_what_fails_before_the_authentication_is_done_again(at: Any, move: Any) -> None:
    """Nothing was sent that counts, so a new connection is made; the wallet is asked for each new challenge."""
    wallet = CountingWallet(before=lambda: asyncio.sleep(0.05))
    async with no_leaks(), scripted(at(move), at(move), honest) as gateway:
        report = await run(gateway, revision="0.3", wallet=wallet, retry=QUICK)
    assert report.key_id == KEY_ID
    assert len(gateway.visits) == 3
    assert wallet.asked == 1 if at is at_challenge else wallet.asked in (1, 2, 3)


async def test_a_refused_connection_is_tried_again() -> None:
    """503 and a Retry-After: the next attempt comes after it."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    statuses = iter([503, 429])

    def upgrade(request: web.Request) -> web.Response | None:
        status = next(statuses, None)
        return None if status is None else web.Response(status=status, headers={"Retry-After": "3"})

    async with no_leaks(), scripted(honest, upgrade=upgrade) as gateway:
        await run(gateway, revision="0.3", retry=RetryPolicy(sleep=sleep))
    assert waits == [3.0, 3.0]
    assert len(gateway.visits) == 1


async def test_the_attempts_are_counted() -> None:
    """The last error says how many there were."""
    async with no_leaks(), scripted(at_challenge(abort)) as gateway:
        error = await error_of(run(gateway, revision="0.3", retry=QUICK))
    assert type(error) is GatewayError
    assert error.attempts == 3
    assert error.retryable


@pytest.mark.parametrize("operation", ["keygen", "addEphemeralKey"])
@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("move", [abort, leave])
async def test_nothing_is_done_again_after_the_authentication(
    operation: str, version: str, move: Any
) -> None:
    """The gateway may have acted on it: one connection, one signature."""
    wallet = CountingWallet()
    async with no_leaks(), scripted(at_result(move), honest) as gateway:
        error = await error_of(
            run(gateway, revision="1", operation=operation, version=version, wallet=wallet, retry=QUICK)
        )
    assert type(error) is GatewayError
    assert (error.phase, error.retryable, error.attempts) == ("result", False, 1)
    assert len(gateway.visits) == 1
    assert wallet.asked == 1


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_revocation_is_done_again(version: str) -> None:
    """Revoking twice is as good as once: v1 signs for each challenge, v2 sends the same frame again."""
    wallet = CountingWallet()
    async with no_leaks(), scripted(at_result(abort), honest) as gateway:
        await run(
            gateway, revision="1", operation="revokeEphemeralKey", version=version, wallet=wallet, retry=QUICK
        )
    assert len(gateway.visits) == 2
    assert wallet.asked == (2 if version == "v1" else 1)


async def test_a_revocation_without_an_answer_is_done_again() -> None:
    """What can be repeated does not wait for the deadline: an attempt's time is enough."""

    async def hang(visit: Visit) -> None:
        await visit.gone()

    async with no_leaks(), scripted(at_result(hang), honest) as gateway:
        timeouts = Timeouts(attempt_s=0.3)
        await run(gateway, revision="1", operation="revokeEphemeralKey", retry=QUICK, timeouts=timeouts)
    assert len(gateway.visits) == 2


@pytest.mark.parametrize("at", [at_wallet, at_result])
async def test_a_person_is_never_asked_twice(at: Any) -> None:
    """After the prompt was shown nothing is begun again, not even a revocation; the error says how far it came."""

    async def once_asked(visit: Visit) -> None:
        await wallet.is_asked.wait()
        visit.abort()

    async def hang() -> None:
        await asyncio.Event().wait()

    wallet = CountingWallet(interactive=True, before=hang if at is at_wallet else None)
    async with no_leaks(), scripted(at(once_asked), honest) as gateway:
        error = await error_of(
            run(gateway, revision="1", operation="revokeEphemeralKey", wallet=wallet, retry=QUICK)
        )
    assert type(error) is GatewayError
    assert error.retryable  # by the caller, who knows that somebody will see a prompt
    assert error.attempts == 1
    assert wallet.asked == 1
    assert len(gateway.visits) == 1


async def test_a_person_does_not_hear_of_failures_before_the_prompt() -> None:
    """Until the wallet is asked, an interactive one makes no difference."""
    wallet = CountingWallet(interactive=True)
    async with no_leaks(), scripted(at_challenge(abort), honest) as gateway:
        await run(gateway, revision="0.3", wallet=wallet, retry=QUICK)
    assert wallet.asked == 1


async def test_one_shot_connects_again_without_asking_again() -> None:
    """The wallet signs once; what was not sent is sent over the next connection."""
    statuses = iter([503, 503])

    def upgrade(request: web.Request) -> web.Response | None:
        status = next(statuses, None)
        return None if status is None else web.Response(status=status)

    wallet = CountingWallet(interactive=True)
    async with no_leaks(), scripted(honest, upgrade=upgrade) as gateway:
        await run(gateway, revision="1", version="v2", wallet=wallet, retry=QUICK)
    assert wallet.asked == 1
    assert len(gateway.requests) == 3


async def test_a_refusal_is_not_tried_again() -> None:
    """A close code that judges the request: sending it again would not help."""

    async def refuse(visit: Visit) -> None:
        await visit.leave(4403, "not you")

    async with no_leaks(), scripted(at_challenge(refuse), honest) as gateway:
        error = await error_of(run(gateway, revision="0.3", retry=QUICK))
    assert type(error) is GatewayError
    assert (error.close_code, error.retryable) == (4403, False)
    assert len(gateway.visits) == 1


# --- time -------------------------------------------------------------------------------------------------------------


async def test_without_a_deadline_the_usual_limit_counts() -> None:
    """A job without a deadline still does not wait for ever for a result."""

    async def hang(visit: Visit) -> None:
        await visit.gone()

    async with no_leaks(), scripted(at_result(hang)) as gateway:
        timeouts = Timeouts(total_s=0.2)
        network = GatewayNetwork(gateway.url(), revision="0.3", retry=ONCE, timeouts=timeouts)
        auth = CountingWallet().auth
        error = await error_of(network.keygen(keygen_request(), auth, deadline=Deadline(None)))
        await network.aclose()
    assert type(error) is GatewayError
    assert error.phase == "result"
    assert "within 0.2 s" in error.message


async def test_a_deadline_that_is_over_opens_nothing() -> None:
    """Not even a connection is made."""
    now = 0.0
    deadline = Deadline(1.0, clock=lambda: now)
    now = 2.0
    async with no_leaks(), scripted(honest) as gateway:
        network = GatewayNetwork(gateway.url(), revision="0.3")
        error = await error_of(network.keygen(keygen_request(), CountingWallet().auth, deadline=deadline))
        await network.aclose()
        assert gateway.requests == []
    assert type(error) is DeadlineExceededError
    assert (error.phase, error.request_id) == ("connect", REQUEST_ID)


async def test_the_deadline_counts_over_all_attempts() -> None:
    """A gateway that lets every attempt time out costs the deadline, not the sum of the attempts."""

    async def hang(visit: Visit) -> None:
        await visit.gone()

    async with no_leaks(), scripted(at_challenge(hang)) as gateway, assert_runs_under(5):
        error = await error_of(
            run(gateway, revision="0.3", retry=QUICK, timeouts=Timeouts(attempt_s=0.3), total_s=0.5)
        )
    assert type(error) is DeadlineExceededError
    assert error.phase == "challenge"
    assert "waiting for the gateway's challenge" in error.message
    assert len(gateway.visits) == 2


# --- challenges -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", ["0.3", "1"])
async def test_a_challenge_is_good_for_one_of_two_concurrent_keygens(revision: str) -> None:
    """The same challenge for both: one gets its key, the other one's wallet is never asked."""
    challenge = new_challenge()
    both = asyncio.Barrier(2)

    async def same(visit: Visit) -> None:
        await visit.receive()
        await both.wait()
        await visit.send(challenge_frame(visit, challenge))
        await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    wallets = [CountingWallet(), CountingWallet()]
    async with no_leaks(), scripted(same) as gateway:
        network = GatewayNetwork(gateway.url(), revision=revision, retry=QUICK)
        results = await asyncio.gather(
            *(operate(network, wallet=wallet) for wallet in wallets), return_exceptions=True
        )
        await network.aclose()
    (error,) = (result for result in results if isinstance(result, DanError))
    assert type(error) is ChallengeError
    assert error.phase == "challenge"
    assert sorted(wallet.asked for wallet in wallets) == [0, 1]
    assert len(gateway.visits) == 2


async def test_a_challenge_that_came_back_in_capitals_is_the_same() -> None:
    """The case of hex digits does not make another challenge; neither does another operation."""
    challenge = new_challenge()
    challenges = iter([challenge.lower(), challenge.upper()])

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit, next(challenges)))
        await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    async with no_leaks(), scripted(script) as gateway:
        network = GatewayNetwork(gateway.url(), revision="1", retry=ONCE)
        await operate(network)
        assert type(await error_of(operate(network, "addEphemeralKey"))) is ChallengeError
        await network.aclose()


async def test_a_challenge_is_taken_once_in_the_whole_process() -> None:
    """Another network object, of another owner even, does not sign what one has signed: the signature holds everywhere."""
    challenge = new_challenge()

    async def same(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit, challenge))
        await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    wallet = CountingWallet()
    async with no_leaks(), scripted(same) as one, scripted(same) as other:
        await run(one, revision="0.3")
        for gateway in (one, other):
            assert type(await error_of(run(gateway, revision="0.3", wallet=wallet))) is ChallengeError
    assert wallet.asked == 0


async def test_a_repeated_challenge_does_not_change_the_revision() -> None:
    """While the revision is being found out, a challenge of the right form settles it, whatever else is wrong."""
    challenge = new_challenge()

    async def script(visit: Visit) -> None:
        await visit.receive()
        await visit.send(challenge_frame(visit, challenge))
        await visit.receive()
        await visit.send(result_frame(visit))
        await visit.gone()

    async with no_leaks(), scripted(script) as gateway:
        network = GatewayNetwork(gateway.url(), retry=ONCE)
        network._gateway.seen.add([challenge])
        assert type(await error_of(operate(network))) is ChallengeError
        await network.aclose()
    assert len(gateway.visits) == 1
    assert network.revision == "1"


def test_remembering_challenges_is_bounded() -> None:
    """The oldest are forgotten first."""
    seen = SeenChallenges(most=3)
    made = [f"{number:064x}" for number in range(5)]
    for challenge in made:
        seen.add([challenge])
    assert len(seen) == 3
    seen.add([made[0]])
    with pytest.raises(ChallengeError):
        seen.add([made[4]])


# --- secrets ----------------------------------------------------------------------------------------------------------

TOKEN = "tok-5ec7e7c0ffee"
PASSWORD = "hunter2-and-more"
QUERY = "query-5ec7e7"


def chain(error: BaseException | None) -> str:
    """Everything that an error and what it was raised from could show."""
    text = ""
    while error is not None:
        text += f"{error}{error!r}{error.__dict__}"
        error = error.__cause__ or error.__context__
    return text


async def echo_all(visit: Visit, send: Any) -> None:
    """Give everything back that the client sent: headers, URL, frames."""
    said = f"{visit.headers.get('X-Api-Key')} {visit.headers.get('Authorization')} {visit.path_qs} {visit.frames[-1]}"
    await send(said)
    await visit.gone()


async def in_a_frame(visit: Visit) -> None:
    await echo_all(visit, visit.send)


async def in_the_reason(visit: Visit) -> None:
    async def close(text: str) -> None:
        await visit.leave(1008, text[:120])

    await echo_all(visit, close)


@pytest.mark.parametrize("move", [in_a_frame, in_the_reason, abort])
@pytest.mark.parametrize("at", [at_challenge, at_wallet, at_result])
async def test_nothing_secret_is_shown(at: Any, move: Any, caplog: Any) -> None:
    """A gateway that echoes headers, URL and signature: neither error nor log repeats a credential or the signature."""
    caplog.set_level(logging.DEBUG, logger="dan_async")
    options = TransportOptions(headers={"X-Api-Key": TOKEN, "X-Auth": f"Bearer {TOKEN}"})
    async with no_leaks(), scripted(at(move)) as gateway:
        url = gateway.url().replace("ws://", f"ws://user:{PASSWORD}@") + f"?key={QUERY}"
        network = GatewayNetwork(url, revision="0.3", retry=QUICK, options=options)
        error = await error_of(operate(network))
        await network.aclose()
    assert isinstance(error, DanError)
    shown = chain(error) + caplog.text + repr(network)
    signatures = [json.loads(frame)["signature"] for visit in gateway.visits for frame in visit.frames[1:]]
    for secret in (TOKEN, PASSWORD, QUERY, *signatures, *(signature[:40] for signature in signatures)):
        assert secret not in shown


async def test_nothing_secret_is_shown_of_a_refused_upgrade() -> None:
    """aiohttp's own error holds the request's headers; ours neither repeats nor keeps it."""
    options = TransportOptions(headers={"X-Api-Key": TOKEN})
    async with no_leaks(), scripted(honest, upgrade=lambda _: web.Response(status=403)) as gateway:
        error = await error_of(run(gateway, revision="0.3", options=options))
    assert error is not None
    assert TOKEN not in chain(error)
    seen: BaseException | None = error
    while seen is not None:
        assert not isinstance(seen, aiohttp.ClientError)
        seen = seen.__cause__ or seen.__context__


async def test_a_retry_is_logged_with_its_request(caplog: Any) -> None:
    """At INFO, with the request id and why."""
    caplog.set_level(logging.INFO, logger="dan_async")
    async with no_leaks(), scripted(at_challenge(leave), honest) as gateway:
        await run(gateway, revision="0.3", retry=QUICK)
    (line,) = (r.getMessage() for r in caplog.records if "attempt 1" in r.getMessage())
    assert REQUEST_ID in line
    assert "restarting" in line
