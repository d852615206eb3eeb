"""
The fault matrix: what each fault does to a key generation or a signature, as data, and how a case of it is run.

Two kinds of cases in key generation. *Acknowledgement*: the key exists, the same authorised request is sent again over new connections, and
only now the nodes misbehave. *Whole job*: the nodes misbehave from the start of ``generate_session_key``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from attrs import evolve, frozen

from dan_async import DanClient, LocalWallet, NodeNetwork
from dan_async.config import Threshold, Timeouts
from dan_async.crypto.address import public_key_to_address
from dan_async.crypto.curve import ORDER, base_multiply, encode
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.signature import personal_message_digest, recover_address
from dan_async.deadline import Deadline
from dan_async.devnet import (
    AccuseInSigning,
    AcknowledgeOtherKey,
    CheatInSigning,
    ContradictInSigning,
    Crash,
    CrashInSigning,
    DealBadOpening,
    DealWrongShare,
    Delay,
    Devnet,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    Fault,
    ForgeCommitments,
    ForgeShares,
    ForgeSignature,
    HttpError,
    NodeLimits,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    Trickle,
    WrongSignatureShare,
)
from dan_async.errors import DanError, DeadlineExceededError, QuorumError
from dan_async.network import KeygenReport
from dan_async.nodes.ask_many import Plan
from dan_async.nodes.keygen import run_keygen
from dan_async.nodes.round import NodeRound, SetupText, open_round
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.setups import EphemeralClaim, UserAuthentication
from dan_async.retry import RetryPolicy
from dan_async.session import DanSessionKeyPayload
from dan_async.types import RequestId
from dan_async.wallets.base import EoaAuth
from tests.helpers import assert_runs_under, describe_sockets, open_sockets

WALLET = LocalWallet("0x" + "00" * 31 + "07")
KEYGEN, PRESIGN, SIGN = ["dan_keygen"], ["dan_presign"], ["dan_sign"]

#: Longer than any test waits.
FOR_EVER = 600.0

#: Of the acknowledgements only: the key exists already. None leaves it to the fault whether t nodes are enough.
ACKNOWLEDGING: dict[str, Fault] = {
    "delay": Delay(seconds=FOR_EVER),
    "drop request": DropRequest(),
    "drop reply": DropReply(methods=KEYGEN),
    "drop every reply": DropReply(),
    "disconnect": Disconnect(methods=KEYGEN),
    "disconnect at once": Disconnect(),
    "refuse": RefuseConnections(),
    "http 503": HttpError(status=503, retry_after=30),
    "http 429": HttpError(status=429, retry_after=1),
    "http 503 without a word": HttpError(status=503, retry_after=None),
    "garbage, json": SendGarbage(form="json", methods=KEYGEN),
    "garbage, binary": SendGarbage(form="binary", methods=KEYGEN),
    "garbage, raw": SendGarbage(form="raw", methods=KEYGEN),
    "garbage at once": SendGarbage(),
    "trickle": Trickle(seconds=0.01, methods=KEYGEN),
    "trickle at once": Trickle(seconds=0.01),
    "crash": Crash(methods=KEYGEN),
    "forged signature": ForgeSignature(),
    "forged shares": ForgeShares(),
    "other key": AcknowledgeOtherKey(),
}

#: The same, but nodes with it get over it, however many they are.
PASSING: dict[str, Fault] = {
    "short delay": Delay(seconds=0.02, jitter_s=0.02),
    "expired nonces": ExpireNonces(),
    "drop one reply": DropReply(methods=KEYGEN, times=1),
    "disconnect once": Disconnect(methods=KEYGEN, times=1),
    "http 503 once": HttpError(status=503, retry_after=0, times=1),
    "crash and return": Crash(methods=KEYGEN, restart_after=0.02, times=1),
}

#: Of the key generation: it cannot succeed with such a node, and whoever it is gets named.
GENERATING: dict[str, Fault] = {
    "request dropped": DropRequest(methods=KEYGEN),
    "request delayed": Delay(seconds=FOR_EVER, methods=KEYGEN),
    "nonces expired": ExpireNonces(),
    "wrong share": DealWrongShare(),
    "bad opening": DealBadOpening(),
    "equivocation": Equivocate(),
    "silent from round 1": FallSilent(round=1),
    "silent from round 2": FallSilent(round=2),
    "silent from round 3": FallSilent(round=3),
    "crash at round 1": Crash(at_round=1),
    "crash at round 2": Crash(at_round=2),
    "crash at round 3": Crash(at_round=3),
    "crash at round 2 and return": Crash(at_round=2, restart_after=0.02),
}

#: Of a signature. Whatever t nodes are left make it; with fewer, it is one clear error.
SIGNING: dict[str, Fault] = {
    "delay": Delay(seconds=FOR_EVER),
    "share delayed": Delay(seconds=FOR_EVER, methods=SIGN),
    "drop presign": DropRequest(methods=PRESIGN),
    "drop sign": DropRequest(methods=SIGN),
    "drop reply": DropReply(methods=PRESIGN),
    "drop share": DropReply(methods=SIGN),
    "disconnect": Disconnect(),
    "refuse": RefuseConnections(),
    "http 503": HttpError(status=503, retry_after=30),
    "http 429": HttpError(status=429, retry_after=1),
    "garbage, json": SendGarbage(form="json", methods=PRESIGN),
    "garbage, binary": SendGarbage(form="binary", methods=SIGN),
    "garbage, raw": SendGarbage(form="raw"),
    "trickle": Trickle(seconds=0.01, methods=PRESIGN),
    "crash after presign": Crash(methods=PRESIGN),
    "crash after sign": Crash(methods=SIGN),
    "crash in round 1": CrashInSigning(at_round=1),
    "crash in round 2": CrashInSigning(at_round=2),
    "silent in round 1": SilentInSigning(round=1),
    "silent in round 2": SilentInSigning(round=2),
    "accuse in round 1": AccuseInSigning(round=1),
    "accuse in round 2": AccuseInSigning(round=2),
    "cheat": CheatInSigning(),
    "wrong share": WrongSignatureShare(),
    "wrong commitments": ForgeCommitments(),
    "contradict": ContradictInSigning(),
}


@frozen
class Size:
    """A network."""

    t: int
    n: int

    @property
    def counts(self) -> tuple[int, int, int]:
        """How many nodes misbehave: one, as many as may, one more."""
        return (1, self.n - self.t, self.n - self.t + 1)

    def __str__(self) -> str:
        return f"{self.t}-of-{self.n}"


SMALL = (Size(2, 3), Size(3, 5))
MIDDLE = Size(5, 9)
LARGE = Size(11, 20)


def secret_of(devnet: Devnet, key_id: str, t: int) -> tuple[int, int]:
    """Interpolate the secret key from t of the shares that nodes hold; gives it and how many hold one."""
    shares = [share for node in devnet.nodes if (share := node.reveal_share(key_id)) is not None]
    some = {share.index: share.secret_share for share in shares[-t:]}
    assert len(some) == t, f"{len(some)} nodes hold a share of the key, {t} are needed"
    secret = 0
    for i, share in some.items():
        factor = share
        for j in some:
            if j != i:
                factor = factor * j * pow(j - i, -1, ORDER) % ORDER
        secret += factor
    return secret % ORDER, len(shares)


def true_key(devnet: Devnet, key_id: str, t: int) -> bytes:
    """The public key that the nodes' shares really make."""
    secret, _ = secret_of(devnet, key_id, t)
    return encode(base_multiply(secret))


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """
    Assert that the block leaves no task and no connection.

    Listening sockets do not count: nodes that were down, or refused connections, have new ones.
    """
    tasks_before, sockets_before = asyncio.all_tasks(), open_sockets()
    yield
    end = time.monotonic() + 3
    while True:
        tasks = [task.get_name() for task in asyncio.all_tasks() - tasks_before if not task.done()]
        sockets = [
            what for what in describe_sockets(open_sockets() - sockets_before) if "listening" not in what
        ]
        if not tasks and not sockets:
            return
        assert time.monotonic() < end, f"left behind: {tasks} {sockets}"
        await asyncio.sleep(0.01)


# --- acknowledgements -------------------------------------------------------------------------------------------------


class MadeKey:
    """A devnet on which a key was made, and the request to which its nodes repeat their acknowledgements."""

    def __init__(self, devnet: Devnet, size: Size) -> None:
        self.devnet, self.size = devnet, size
        self.threshold = Threshold(size.t, size.n)
        self.opened: NodeRound
        self.authentication: UserAuthentication
        self.report: KeygenReport

    @classmethod
    @contextlib.asynccontextmanager
    async def on_devnet(cls, size: Size) -> AsyncIterator[MadeKey]:
        async with Devnet(size.t, size.n, gateway=False) as devnet:
            made = cls(devnet, size)
            await made._make()
            yield made

    async def _make(self) -> None:
        key = EphemeralKey.generate("secp256k1")
        claim = EphemeralClaim(
            eph_id=key.default_id,
            eph_pk=key.public_key,
            expiry=int(time.time()) + 3600,
            sign_alg=key.algorithm,
        )
        setup = REVISION_1.keygen_setup(threshold=self.threshold, claim=claim)
        text = SetupText(
            request_id=RequestId("0x" + "5a" * 32),
            operation="keygen",
            revision="1",
            text=REVISION_1.encode_setup(setup),
        )
        network = self.devnet.network()
        try:
            nodes = network.pool.nodes
            deadline = Deadline(50)
            self.opened, _ = await open_round(nodes, text, Plan(wanted=self.size.n), deadline=deadline)
            auth = EoaAuth(WALLET)
            challenge = self.opened.challenge
            signature = await auth.authorise(
                challenge=challenge, typed_data=REVISION_1.typed_data("keygen", setup, challenge)
            )
            self.authentication = UserAuthentication(
                method=auth.method,
                id=auth.id,
                credentials=REVISION_1.encode_claim(claim),
                signature=signature,
            )
            self.report = await self._ask(nodes, deadline)
            assert len(self.report.holders) >= self.size.t
        finally:
            await network.aclose()

    async def _ask(self, nodes: Any, deadline: Deadline, grace_s: float | None = None) -> KeygenReport:
        by_operator = {node.operator: node for node in nodes}
        return await run_keygen(
            by_operator, self.opened, self.authentication, self.threshold, deadline=deadline, grace_s=grace_s
        )

    async def ask_again(
        self,
        fault: Fault,
        count: int,
        *,
        deadline_s: float,
        attempt_s: float,
        by_post: bool = False,
        attempts: int = 2,
    ) -> Any:
        """
        Have the nodes repeat their acknowledgements, *count* of them with a fault.

        Args:
            fault: The fault.
            count: How many have it.
            deadline_s: The deadline over all.
            attempt_s: The limit of one attempt.
            by_post: Whether each request is a POST of its own, instead of all going over one WebSocket.
            attempts: How often a node is asked.

        Returns:
            The report, or the QuorumError.
        """
        timeouts = Timeouts(attempt_s=attempt_s, connect_s=attempt_s)
        retry = RetryPolicy(attempts=attempts, first_wait_s=0.02, longest_wait_s=0.1)
        try:
            async with nothing_left(), assert_runs_under(deadline_s + 1):
                for index in range(count):
                    self.devnet.faults[index] = fault
                network = NodeNetwork(
                    [
                        evolve(node, url=node.url.replace("ws:", "http:")) if by_post else node
                        for node in self.devnet.endpoints
                    ],
                    threshold=self.threshold,
                    timeouts=timeouts,
                    retry=retry,
                )
                try:
                    return await self._ask(network.pool.nodes, Deadline(deadline_s))
                except QuorumError as error:
                    return error
                finally:
                    await network.aclose()
                    for index in range(count):
                        self.devnet.faults[index] = None
        finally:
            for index in range(count):
                await self.devnet.nodes[index].start()

    def check_key(self, report: KeygenReport) -> None:
        """The key is the one that was made, and the one that the shares make."""
        assert report.key_id == self.report.key_id
        assert report.public_key == true_key(self.devnet, report.key_id, self.size.t)


# --- whole jobs -------------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Result:
    """What became of one job."""

    payload: Any = None
    report: KeygenReport | None = None
    error: QuorumError | None = None
    faulty: frozenset[str] = frozenset()
    operators: frozenset[str] = frozenset()
    elapsed_s: float = 0.0

    @property
    def named(self) -> set[str]:
        """The nodes that the report says were blamed, or failed and do not take part."""
        assert self.report is not None
        failed = {outcome.operator for outcome in self.report.replaced if outcome.step == "challenge"}
        return failed | set(self.report.culprits)

    @property
    def disputed(self) -> set[str]:
        """The nodes of which one word stood against another."""
        assert self.report is not None
        return {operator for pair in self.report.disputes for operator in pair}

    def check_success(self) -> KeygenReport:
        """There is a key, and a report of it."""
        assert self.error is None, str(self.error)
        assert self.report is not None
        return self.report


async def run_job(
    size: Size,
    faults: Mapping[int, Fault],
    *,
    spares: int = 0,
    min_parties: int | None = None,
    deadline_s: float = 15.0,
    round_s: float = 2.0,
    attempt_s: float = 1.0,
) -> Result:
    """Make a session key on a devnet of its own, where some nodes misbehave from the start."""
    devnet = Devnet(
        size.t,
        size.n + spares,
        limits=NodeLimits(round_s=round_s, stop_grace_s=0.05),
        gateway=False,
        faults=faults,
    )
    async with devnet:
        return await _job_on(
            devnet,
            size,
            frozenset(devnet.nodes[index].operator for index in faults),
            min_parties=min_parties,
            deadline_s=deadline_s,
            timeouts=Timeouts(attempt_s=attempt_s, connect_s=attempt_s),
        )


async def _job_on(
    devnet: Devnet,
    size: Size,
    faulty: frozenset[str],
    *,
    min_parties: int | None,
    deadline_s: float,
    timeouts: Timeouts,
) -> Result:
    reports: list[KeygenReport] = []
    operators = frozenset(node.operator for node in devnet.nodes)
    # Enough attempts to outlast a key generation that fails, and to hear of it.
    retry = RetryPolicy(attempts=4, first_wait_s=0.02, longest_wait_s=0.1)
    started = time.monotonic()
    error, payload = None, None
    async with DanClient(devnet.network(timeouts=timeouts, retry=retry)) as dan:
        async with assert_runs_under(deadline_s + 1):
            try:
                payload = await dan.generate_session_key(
                    wallet=WALLET,
                    chain_id=1,
                    threshold=size.t,
                    parties_number=size.n,
                    min_parties=min_parties,
                    timeout=deadline_s,
                    on_report=reports.append,
                )
            except QuorumError as caught:
                error = caught
    elapsed_s = time.monotonic() - started
    if payload is not None:
        key = true_key(devnet, payload.mpc_key_id, size.t)
        assert payload.public_key == "0x" + key.hex()
        assert payload.session_key_eoa == public_key_to_address(key)
    return Result(
        payload=payload,
        report=reports[0] if reports else None,
        error=error,
        faulty=faulty,
        operators=operators,
        elapsed_s=elapsed_s,
    )


# --- signatures -------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def signing_devnet(size: Size) -> AsyncIterator[tuple[Devnet, DanSessionKeyPayload]]:
    """A devnet with a key that has signed, and the set-ups of all pairs, which are made once and not what is tested."""
    async with Devnet(size.t, size.n, limits=NodeLimits(stop_grace_s=0.05), gateway=False) as devnet:
        async with DanClient(devnet.network(), timeouts=Timeouts(total_s=240)) as dan:
            session = await dan.generate_session_key(
                wallet=WALLET, chain_id=1, threshold=size.t, parties_number=size.n
            )
            await dan.sign_message("first", session)
            async with asyncio.timeout(240):
                while not all(len(pairs_of(node)) == size.n - 1 for node in devnet.nodes):
                    await asyncio.sleep(0.05)
        yield devnet, session


def pairs_of(node: Any) -> Any:
    """The set-ups that a node has with others."""
    return node._runner._last.signing.pairs


async def sign_with_faults(
    devnet: Devnet, session: DanSessionKeyPayload, fault: Fault, count: int, *, deadline_s: float
) -> DanError | None:
    """
    Sign twice with a new client, while the nodes that it asks first have a fault.

    Returns:
        None if both signatures are right, the error if there is one: never a wrong signature.
    """
    network = devnet.network()
    try:
        async with DanClient(network) as dan:
            for node in devnet.nodes[:count]:
                devnet.faults[node.index] = fault
            try:
                for text in ("one", "two"):
                    async with assert_runs_under(deadline_s + 1):
                        signature = await dan.sign_message(text, session, timeout=deadline_s)
                    digest = personal_message_digest(text.encode())
                    assert recover_address(digest, bytes.fromhex(signature[2:])) == session.session_key_eoa
            except (QuorumError, DeadlineExceededError) as error:
                return error
            finally:
                for node in devnet.nodes[:count]:
                    devnet.faults[node.index] = None
    finally:
        # The nodes' own tasks go on for a while: they wait for a silent signer to their own limit.
        assert [task for task in asyncio.all_tasks() if task.get_name().startswith("dan-")] == []
        for node in devnet.nodes[:count]:
            await node.start()
    return None


def check_error(result: Result) -> None:
    """One clear QuorumError: it says how many were needed, what each faulty node did, and what to do."""
    assert result.payload is None
    error = result.error
    assert isinstance(error, QuorumError)
    assert error.hint
    assert result.faulty <= {outcome.operator for outcome in error.nodes}
    for outcome in error.nodes:
        assert outcome.operator in str(error)
