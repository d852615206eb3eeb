"""
Key generation over the nodes (docs/reference/node-protocol.md, ``dan_keygen``): participants, their verdict, new starts.

Until the owner has signed, a node that fails is replaced silently. After that a failed round is started again with a new
signature, which a person is asked for only if the caller allows it.

A node that most of the others blame is left out of the next round. Where one word stands against another, the two are in
dispute (``blame``) and never take part together again in this call. A dishonest node that spoils a round makes itself a
culprit, or disputes another honest node: so d spares are enough for d dishonest nodes.

A slow node is raced by a spare at the challenge (``ask_many``), and left behind once t agree (``UntilVerdict``); one that is
slow in signing is the business of ``signing_race``. What an acknowledgement must satisfy is checked in ``acknowledgements``.

Whether a key generation that was broken off made a key is found out by asking every node of the pool ("dan_settle_keygen").
A node that answers begins nothing more under the request. So if t nodes acknowledged the same key, there is a session; and
if fewer than t nodes are left that acknowledged or did not answer, there can never be one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

from attrs import define, evolve, field, frozen

from dan_async._values import MAX_SAFE_INT
from dan_async.config import MAX_PARTIES, Threshold, Timeouts
from dan_async.deadline import Deadline
from dan_async.errors import (
    AcknowledgementError,
    ClientClosedError,
    ConfigurationError,
    DanError,
    NodeCode,
    NodeError,
    NodeOutcome,
    NodeRefusedError,
    QuorumError,
    failure_number,
)
from dan_async.listeners import EventHub, RequestLog, report_verdict
from dan_async.network import (
    AuthModule,
    KeygenQuestion,
    KeygenReport,
    KeygenRequest,
    KeygenSettlement,
    KeygenTimings,
)
from dan_async.nodes.acknowledgements import KeygenTally, set_dissent_apart
from dan_async.nodes.ask_many import Answers, Plan, ask_many
from dan_async.nodes.blame import Pair, judge, sit_out
from dan_async.nodes.health import rank
from dan_async.nodes.keygen_batch import KeygenBatches
from dan_async.nodes.node import Node, Request, probing
from dan_async.nodes.round import (
    NodeRound,
    SetupText,
    authenticate,
    is_incurable,
    open_round,
    out_of_time,
    raise_if_closed,
    submit,
)
from dan_async.protocols.fields import HASH, decode_canonical, encode, list_of, number, operators, wire
from dan_async.protocols.gateway_1 import REVISION_1
from dan_async.protocols.node import (
    CERTIFY_KEYGEN,
    MOST_RESTARTS,
    SETTLE_KEYGEN,
    Acknowledgement,
    CertifyParams,
    ChallengeResult,
    KeygenClaims,
    Settlement,
    SettleParams,
    request_ids,
    restarted_request_id,
    settle_digest,
)
from dan_async.protocols.setups import KeygenSetup, UserAuthentication
from dan_async.retry import Tries
from dan_async.types import OperatorAddress, RequestId, TypedData

_log = logging.getLogger(__name__)

#: How many restarts are allowed that leave out no further node. One that does leave out another is always allowed.
_VAIN_RESTARTS = 2

#: Without a grace of the caller's own: this part of the time that it took until t nodes agreed, within these bounds, in
#: seconds. A tenth keeps a call with a stalled node about as fast as one without.
_GRACE_PART = 0.1
_LEAST_GRACE_S = 0.002
_MOST_GRACE_S = 0.05

#: How long nodes that could not finish have to take the certificate when t agree, in seconds; whoever wants more of them to
#: hold a share waits longer.
_CERTIFY_S = 0.25

#: When t cannot agree any more and a node blames another: how long to listen to what the rest say of it, in seconds.
_BLAME_S = 0.25


# --- the verdict of t nodes -------------------------------------------------------------------------------------------


def grace(agreed_after_s: float, grace_s: float | None = None) -> float:
    """Return the seconds to listen on once t agree: those that the caller wants, or about a tenth of the time so far."""
    if grace_s is not None:
        return grace_s
    return min(_MOST_GRACE_S, max(_LEAST_GRACE_S, _GRACE_PART * agreed_after_s))


@frozen(kw_only=True, eq=False, repr=False)
class UntilVerdict(Plan[Acknowledgement]):
    """
    Over when t nodes agree, or when t cannot agree any more.

    When t agree, the others are listened to for a moment longer (see ``grace``), so that the caller learns how many hold a
    share. Cutting them off is safe: a node that did its work repeats its answer when asked again. When t cannot agree, the
    moment is 50 ms, for the others may say which node is to blame; if one has said it, all but the accused have 250 ms.
    """

    tally: KeygenTally
    #: Seconds to listen on after the verdict is won; None for a short time that depends on how long it took.
    grace_s: float | None = None
    #: Nodes that are not waited for after the verdict is won: they were late the last times as well.
    slow: Collection[OperatorAddress] = ()
    #: None: the nodes make the key together, so running out of time says nothing about any one of them.
    last_word_s: float = 0.0

    def check(self, operator: OperatorAddress, answer: Acknowledgement) -> str:
        """Count it, if it passes every check."""
        self.tally.record(operator, answer)
        return answer.summary

    def is_settled(self, answers: Answers[Acknowledgement]) -> bool:
        """Whether t agree, or cannot agree any more."""
        for operator in answers.errors:
            self.tally.record_failure(operator)
        return self.tally.is_won or self.tally.is_lost

    def linger_s(self, answers: Answers[Acknowledgement]) -> float:
        """Short if t agree; longer if it may come out who is to blame."""
        if self.tally.is_won:
            return grace(answers.elapsed_s, self.grace_s)
        return _BLAME_S if _accused(answers) else _MOST_GRACE_S

    def spared(self, answers: Answers[Acknowledgement]) -> Collection[OperatorAddress]:
        """Return the slow nodes, or the accused, which would hardly answer."""
        return self.slow if self.tally.is_won else _accused(answers)


def _accused(answers: Answers[Acknowledgement]) -> set[OperatorAddress]:
    """Return all nodes that any other blames."""
    refusals = [error for error in answers.errors.values() if isinstance(error, NodeRefusedError)]
    return {OperatorAddress(culprit) for refusal in refusals for culprit in refusal.culprits}


@frozen(kw_only=True, eq=False, repr=False)
class _Certified(Plan[Acknowledgement]):
    """Over when all have answered."""

    tally: KeygenTally

    def check(self, operator: OperatorAddress, answer: Acknowledgement) -> str:
        self.tally.record(operator, answer)
        return answer.summary


async def _certify(
    nodes: Mapping[OperatorAddress, Node],
    tally: KeygenTally,
    outcomes: Sequence[NodeOutcome[Acknowledgement]],
    deadline: Deadline,
) -> list[NodeOutcome[Acknowledgement]]:
    """Bring the certificate to the nodes that could not finish; return all outcomes, with the new answers of these nodes."""
    (agreed,) = tally.winners
    found = {
        o.answer.certificate: o for o in outcomes if o.answer is not None and o.answer.text == agreed.text
    }
    certificates = [certificate for certificate in found if certificate]
    lacking = [
        nodes[o.operator]
        for o in outcomes
        if isinstance(o.error, NodeError)
        and not isinstance(o.error, AcknowledgementError)
        and (failure_number(o.error) == NodeCode.KEYGEN_FAILED or not tally.is_won)
    ]
    if not certificates or not lacking:
        return list(outcomes)
    for node in lacking:
        tally.forget_failure(node.operator)

    async def hand_on(node: Node, tries: Tries) -> Acknowledgement:
        # A dishonest node's own may be worthless; t have acknowledged, so there is an honest one among them.
        *others, last = certificates
        for certificate in others:
            with suppress(NodeRefusedError):
                return await ask(node, tries, certificate)
        return await ask(node, tries, last)

    async def ask(node: Node, tries: Tries, certificate: bytes) -> Acknowledgement:
        params = CertifyParams(request_id=agreed.request_id, certificate=certificate)
        request = Request(CERTIFY_KEYGEN, encode(params), Acknowledgement.read, agreed.request_id)
        return await node.call(tries, request=request, deadline=limit)

    limit = Deadline(deadline.cap(_CERTIFY_S if tally.is_won else None))
    plan = _Certified(wanted=len(lacking), tally=tally, last_word_s=0.0)
    answers = await ask_many(lacking, hand_on, plan, step="certificate", deadline=limit)
    said = {outcome.operator: outcome for outcome in answers.outcomes if outcome.is_success}
    return [said.get(outcome.operator, outcome) for outcome in outcomes]


async def run_keygen(
    nodes: Mapping[OperatorAddress, Node],
    opened: NodeRound,
    authentication: UserAuthentication,
    threshold: Threshold,
    *,
    deadline: Deadline,
    grace_s: float | None = None,
    min_holders: int | None = None,
    batches: KeygenBatches | None = None,
    make_report: Callable[..., KeygenReport] = KeygenReport,
) -> KeygenReport:
    """Send the authorised request to every participant; raise a QuorumError with every outcome if too few agree."""
    setup = opened.setup
    tally = KeygenTally(
        request_id=setup.request_id,
        threshold=threshold,
        participants=opened.participants,
        owner_id=authentication.id,
        holders=min_holders or 0,
    )
    slow = []
    for operator in opened.participants:
        health = nodes[operator].health
        health.keygens += 1
        if grace_s is None and not health.is_worth_the_grace:
            slow.append(operator)
    answers = await submit(
        nodes,
        opened,
        authentication,
        decode=Acknowledgement.read,
        plan=UntilVerdict(wanted=len(opened.participants), tally=tally, grace_s=grace_s, slow=slow),
        deadline=deadline,
        join=None if batches is None else partial(batches.join, nodes, opened, threshold, deadline),
    )
    said = answers.outcomes
    for outcome in said if answers.errors else ():
        if isinstance(outcome.error, DanError) and not isinstance(outcome.error, ClientClosedError):
            RequestLog(_log, outcome.error.request_id).warning("%s", outcome.describe())
    if answers.errors and len(tally.winners) == 1:
        said = await _certify(nodes, tally, said, deadline)
    outcomes = tuple(said)
    failure: QuorumError | None = None
    try:
        agreed = tally.verdict()
        outcomes = set_dissent_apart(outcomes, agreed)
    except QuorumError as error:  # then nobody knows which nodes are right
        failure = out_of_time(error, deadline, "waiting for the nodes to generate the key", phase="keygen")
        failure.outcomes = outcomes
    suspects = frozenset[OperatorAddress]() if failure is None else judge(failure).suspects
    agreeing = [outcome.operator for outcome in outcomes if outcome.answer is not None]
    for outcome in outcomes:
        health = nodes[outcome.operator].health
        if isinstance(outcome.error, AcknowledgementError) or outcome.operator in suspects:
            health.misbehaved()
        elif failure is None and outcome.error is None:
            health.acknowledged(in_time=outcome.answer is not None)
    report_verdict(
        nodes[opened.participants[0]].events,
        setup.request_id,
        setup.operation,
        is_won=failure is None,
        needed=max(threshold.t, min_holders or 0),
        agreed=agreeing,
        outcomes=outcomes,
        elapsed_s=answers.elapsed_s,
        key_id=None if failure is not None else agreed.key_id,
    )
    if failure is not None:
        raise failure from None
    return make_report(
        request_id=setup.request_id,
        key_id=agreed.key_id,
        public_key=agreed.public_key,
        threshold=threshold,
        outcomes=outcomes,
    )


# --- the client's side: participants and new starts -------------------------------------------------------------------


@frozen(kw_only=True, repr=False)
class _RoundText:
    """The part of an opened round that a store keeps beside the request."""

    participants: Annotated[tuple[OperatorAddress, ...], wire("participants", operators(2, MAX_PARTIES))]
    nonces: Annotated[tuple[bytes, ...], wire("nonces", list_of(HASH, 2, MAX_PARTIES))]
    expires_at: Annotated[int, wire("expiresAt", number(0, MAX_SAFE_INT))]


@frozen(kw_only=True, repr=False)
class OpenedRound:
    """A round whose nodes are ready, with the setup that the owner is to sign for it."""

    setup: KeygenSetup
    threshold: Threshold
    round: NodeRound
    #: When the first nonce ends, in Unix seconds.
    expires_at: int
    #: The outcome of every node that was asked; empty if only the wanted number was asked and all of them take part.
    outcomes: tuple[NodeOutcome[Any], ...] = ()
    #: When the nonce of each participant ends.
    ends: Mapping[OperatorAddress, int] = MappingProxyType({})

    @classmethod
    def read(cls, request: KeygenRequest, text: str, nodes: Mapping[OperatorAddress, Node]) -> OpenedRound:
        """Read the ``text`` of a round that was opened for a request, if all its participants are known."""
        found = decode_canonical(_RoundText, text, "round")
        unknown = [operator for operator in found.participants if operator not in nodes]
        if unknown:
            raise ConfigurationError(
                f"the key generation was begun with node {unknown[0]}, which this network does not have",
                hint="Complete it with a client of the same nodes, or begin again",
            )
        threshold = Threshold(request.threshold.t, len(found.participants))
        setup, signed = _setup_of(request, threshold)
        opened = NodeRound(setup=signed, participants=found.participants, nonces=found.nonces)
        return cls(setup=setup, threshold=threshold, round=opened, expires_at=found.expires_at)

    @property
    def text(self) -> str:
        """The text that ``read`` takes."""
        return encode(
            _RoundText(
                participants=self.round.participants, nonces=self.round.nonces, expires_at=self.expires_at
            )
        )

    @property
    def typed_data(self) -> TypedData:
        """The typed data that the owner signs."""
        return REVISION_1.typed_data("keygen", self.setup, self.round.challenge)

    @property
    def replaced(self) -> tuple[NodeOutcome[Any], ...]:
        """The outcomes of nodes that were asked and do not take part."""
        return tuple([o for o in self.outcomes if o.operator not in self.round.participants])


def _setup_of(request: KeygenRequest, threshold: Threshold) -> tuple[KeygenSetup, SetupText]:
    setup = REVISION_1.keygen_setup(
        threshold=threshold,
        claim=request.claim,
        permissions=request.permissions,
        key_label=request.key_label,
    )
    return setup, SetupText.of(request.request_id, "keygen", setup)


@define(eq=False, repr=False)
class NodeKeygen:
    """One key generation of a client, new starts included."""

    _nodes: Mapping[OperatorAddress, Node]
    _first: KeygenRequest
    _events: EventHub
    _deadline: Deadline = field(kw_only=True)
    _timeouts: Timeouts = field(kw_only=True)
    #: Puts it together with others, if it is part of a batch.
    _batches: KeygenBatches | None = field(default=None, kw_only=True)
    #: Of later rounds, as long as there are enough others.
    _left_out: set[OperatorAddress] = field(factory=set, init=False)
    _replaced: list[NodeOutcome[Any]] = field(factory=list, init=False)
    _culprits: set[OperatorAddress] = field(factory=set, init=False)
    #: Pairs of nodes that never take part together again.
    _disputes: set[Pair] = field(factory=set, init=False)
    _restarts: int = field(default=0, init=False)
    _vain_restarts: int = field(default=0, init=False)
    _least: int = field(init=False)

    @_least.default
    def _fewest_parties(self) -> int:
        return self._first.fewest_parties

    async def open(self) -> OpenedRound:
        """Go as far as the challenge; see ``OpensKeygen.open_keygen`` for what it raises."""
        opened = await self._open(self._first, rank(self._nodes.values()))
        # The first nonce to end is the end of all: one dishonest node would leave the owner no time.
        while hasty := self._hasty(opened):
            self._left_out |= hasty
            candidates = rank(self._nodes.values(), without=self._left_out)
            if len(candidates) < self._least:
                break
            try:
                opened = await self._open(self._first, candidates)
            except QuorumError:  # little time is better than no key
                break
        return opened

    def _hasty(self, opened: OpenedRound) -> set[OperatorAddress]:
        """Return participants whose nonces last less than half as long as t of them, one of whom is honest, give at most."""
        t = opened.threshold.t
        now = self._nodes[opened.round.participants[0]].clock.now(t)
        usual_s = sorted(opened.ends.values())[t - 1] - now
        return {operator for operator, end in opened.ends.items() if end - now < usual_s / 2}

    async def run(self, auth: AuthModule, signed: OpenedRound | None = None) -> KeygenReport:
        """Run it, or go on with the round that the owner has signed; see ``Network.keygen`` for what it raises."""
        started = time.monotonic()
        request, candidates = self._first, rank(self._nodes.values())
        async with probing(candidates[request.threshold.n :], deadline=self._deadline):
            while True:
                began = time.monotonic()
                opened = signed or await self._open(request, candidates)
                if opened.outcomes:
                    self._replaced += opened.replaced
                were_ready = time.monotonic()
                authentication = await self._authorise(opened, auth)
                authorised = time.monotonic()
                try:
                    return await run_keygen(
                        self._nodes,
                        opened.round,
                        authentication,
                        opened.threshold,
                        deadline=self._deadline,
                        grace_s=self._timeouts.grace_s,
                        min_holders=self._first.min_holders,
                        batches=self._batches,
                        make_report=partial(self._report, started, began, were_ready, authorised),
                    )
                except QuorumError as error:
                    self._learn(error, is_interactive=auth.interactive, was_signed=signed is not None)
                candidates = self._next_candidates()
                request = self._start_anew(request, candidates)

    def _report(
        self, started: float, began: float, were_ready: float, authorised: float, **found: Any
    ) -> KeygenReport:
        now = time.monotonic()
        return KeygenReport(
            **found,
            restarts=self._restarts,
            replaced=tuple(self._replaced),
            culprits=tuple(sorted(self._culprits)),
            disputes=self._pairs if self._disputes else (),
            timings=KeygenTimings(
                challenge_s=were_ready - began,
                wallet_s=authorised - were_ready,
                keygen_s=now - authorised,
                total_s=now - started,
            ),
        )

    # --- starting again -----------------------------------------------------------------------------------------------

    def _learn(self, error: QuorumError, *, is_interactive: bool, was_signed: bool) -> None:
        """Leave nodes out of the next round; raise the error if there is a reason not to begin one."""
        raise_if_closed(error.outcomes)
        self._leave_out(error)
        obstacle = self._obstacle(error, is_interactive=is_interactive, was_signed=was_signed)
        if obstacle is not None:
            error.hint = obstacle
            error.outcomes = (*self._replaced, *error.outcomes)
            error.earlier_culprits = tuple(sorted(self._culprits))
            raise error
        self._replaced += [o for o in error.outcomes if not o.is_success]

    def _start_anew(self, request: KeygenRequest, candidates: Sequence[Node]) -> KeygenRequest:
        """Return the request of the next round."""
        self._restarts += 1
        RequestLog(_log, request.request_id).warning("starting again, for the %d. time", self._restarts)
        new_id = restarted_request_id(self._first.request_id, self._restarts)
        if self._events.listeners:
            from dan_async.events import OperationRestarted

            self._events.emit(
                OperationRestarted(
                    request_id=request.request_id,
                    new_request_id=new_id,
                    restart=self._restarts,
                    excluded=tuple(sorted(self._nodes.keys() - {node.operator for node in candidates})),
                )
            )
        return evolve(request, request_id=new_id)

    def _leave_out(self, error: QuorumError) -> None:
        """Leave out of the next round the nodes that most others blame, that answered wrong, or not at all."""
        before = len(self._left_out), len(self._disputes)
        blame = judge(error)
        self._culprits |= blame.culprits
        self._disputes |= blame.disputes
        self._left_out |= self._culprits
        for outcome in error.outcomes:
            is_refusal = isinstance(outcome.error, NodeRefusedError) and not is_incurable(outcome)
            if outcome.error is not None and not is_refusal:
                self._left_out.add(outcome.operator)
        if (len(self._left_out), len(self._disputes)) == before or self._suitable() is None:
            self._vain_restarts += 1

    def _next_candidates(self) -> list[Node]:
        # If nothing better is left, those that failed may have recovered.
        return self._suitable() or rank(self._nodes.values())

    def _suitable(self) -> list[Node] | None:
        """Return nodes that are neither at fault nor in dispute with each other, best first; None if they are too few."""
        left = rank(self._nodes.values(), without=self._left_out)
        disputes = {pair for pair in self._disputes if not pair & self._left_out}
        for count in range(min(self._first.threshold.n, len(left)), self._least - 1, -1):
            out = sit_out(disputes, len(left) - count)
            if out is not None:
                return [node for node in left if node.operator not in out]
        return None

    @property
    def _pairs(self) -> tuple[tuple[OperatorAddress, OperatorAddress], ...]:
        return tuple(sorted((min(pair), max(pair)) for pair in self._disputes))

    def _obstacle(self, error: QuorumError, *, is_interactive: bool, was_signed: bool) -> str | None:
        """Return the reason not to start again, as the error's hint; None if there is none."""
        if not error.retryable or self._deadline.is_over:
            return error.hint
        if 2 * sum(map(is_incurable, error.outcomes)) > len(error.outcomes):
            error.retryable = False
            return (
                "Most nodes refuse the request itself: read their reasons below; repeating it does not help"
            )
        if was_signed:
            return (
                "Repeat the call, which is safe; another attempt needs another signature, so else begin again"
            )
        if is_interactive and not self._first.allow_resign:
            return (
                "The owner has signed, and another attempt needs another signature: call again, which is safe, "
                "or allow it with allow_resign=True"
            )
        if self._vain_restarts <= _VAIN_RESTARTS and self._restarts < MOST_RESTARTS:
            return None
        if self._suitable() is None:
            left = len(self._nodes.keys() - self._left_out)
            pairs = "; ".join(f"one of {one} and {other} is faulty" for one, other in self._pairs)
            return (
                f"Without the nodes at fault {left} are left{f' ({pairs})' if pairs else ''}, "
                f"and {self._least} are needed: add spare nodes, or allow fewer with min_parties"
            )
        return f"It was started again {self._restarts} times. Look at each node's outcome below"

    # --- the steps of a round -----------------------------------------------------------------------------------------

    async def _open(self, request: KeygenRequest, candidates: list[Node]) -> OpenedRound:
        """Find n nodes that are ready; fewer, if that many do not answer and the request allows it."""
        least = self._least
        threshold = request.threshold
        if len(candidates) < threshold.n:
            threshold = Threshold(threshold.t, max(least, len(candidates)))
        opened = await self._ask(request, threshold, candidates)
        ready = len(opened.round.participants)
        if least <= ready < threshold.n:
            # n is part of what is signed, so a smaller set of parties needs nonces of its own.
            answered = [self._nodes[operator] for operator in opened.round.participants]
            first, opened = opened, await self._ask(request, Threshold(threshold.t, ready), answered)
            opened = evolve(opened, outcomes=(*first.replaced, *opened.outcomes))
            ready = len(opened.round.participants)
        if ready < opened.threshold.n:
            raise_if_closed(opened.outcomes)
            outcomes = (*self._replaced, *opened.outcomes)
            error = not_ready(ready, opened.threshold, outcomes, request.request_id, deadline=self._deadline)
            error.earlier_culprits = tuple(sorted(self._culprits))
            if self._restarts:
                error.hint = (
                    "A first attempt had failed. Repeating the call is safe; add spare nodes, or allow fewer"
                )
            raise error
        return opened

    async def _ask(
        self, request: KeygenRequest, threshold: Threshold, candidates: Sequence[Node]
    ) -> OpenedRound:
        setup, text = _setup_of(request, threshold)
        # Fewer parties than asked for are taken late, but while there is time to go on with them.
        patience_s, remaining = self._timeouts.patience_s, self._deadline.remaining()
        plan: Plan[ChallengeResult] = Plan(
            wanted=threshold.n,
            hedge_s=self._timeouts.hedge_s,
            least=min(self._least, threshold.n),
            patience_s=patience_s if remaining is None else min(patience_s, remaining / 2),
        )
        opened, answers = await open_round(candidates, text, plan, deadline=self._deadline)
        ends = {operator: answers.values[operator].expires_at for operator in opened.participants}
        return OpenedRound(
            setup=setup,
            threshold=threshold,
            round=opened,
            expires_at=min(ends.values(), default=0),
            ends=ends,
            outcomes=()
            if len(opened.participants) == len(answers.questions) == threshold.n
            else tuple(answers.outcomes),
        )

    async def _authorise(self, opened: OpenedRound, auth: AuthModule) -> UserAuthentication:
        return await authenticate(
            auth,
            opened.round.challenge,
            typed_data=opened.typed_data,
            credentials=REVISION_1.encode_claim(self._first.claim),
            request_id=opened.round.setup.request_id,
            deadline=self._deadline,
            events=self._events,
        )


def not_ready(
    ready: int,
    threshold: Threshold,
    outcomes: Sequence[NodeOutcome[Any]],
    request_id: RequestId,
    *,
    deadline: Deadline,
) -> QuorumError:
    """Return the error of a key generation that could not begin."""
    can_do = ready >= threshold.t
    advice = "Allow fewer with min_parties, or add nodes" if can_do else "Look at the network's health()"
    error = QuorumError(
        f"{ready} {'node is' if ready == 1 else 'nodes are'} ready for key generation, {threshold.n} are needed",
        hint=f"The owner was not asked, nothing was created. {advice}",
        threshold=threshold.t,
        outcomes=sorted(outcomes, key=lambda outcome: outcome.is_success),  # failures first
        phase="challenge",
        request_id=request_id,
    )
    return out_of_time(error, deadline, "waiting for nodes to be ready", phase="challenge")


# --- settling ---------------------------------------------------------------------------------------------------------


async def settle_keygen(
    nodes: Sequence[Node], question: KeygenQuestion, *, deadline: Deadline
) -> KeygenSettlement:
    """Ask the nodes; see ``SettlesKeygen``."""
    key = question.ephemeral_key

    async def ask(node: Node, tries: Tries) -> tuple[Acknowledgement, ...]:
        digest = settle_digest(request_id=question.request_id, operator=node.operator, eph_pk=key.public_key)
        params = SettleParams(
            request_id=question.request_id,
            eph_pk=key.public_key,
            sign_alg=key.algorithm,
            signature=key.sign_message(digest),
        )
        request = Request(SETTLE_KEYGEN, encode(params), Settlement.read, question.request_id)
        settlement = await node.call(tries, request=request, deadline=deadline)
        return settlement.acknowledgements

    plan: Plan[tuple[Acknowledgement, ...]] = Plan(wanted=len(nodes))
    answers = await ask_many(nodes, ask, plan, step="settling", deadline=deadline)
    return settlement_of(question, answers.values, answers.failures)


def settlement_of(
    question: KeygenQuestion,
    answers: Mapping[OperatorAddress, tuple[Acknowledgement, ...]],
    failures: Sequence[NodeOutcome[Any]],
) -> KeygenSettlement:
    """Judge by the acknowledgements of each node, none if it knows of no key, and by the nodes that did not answer. Pure."""
    groups: dict[Hashable, dict[OperatorAddress, Acknowledgement]] = {}
    for operator, acknowledgements in answers.items():
        for ack in acknowledgements:
            groups.setdefault((ack.request_id, ack.threshold, ack.participants), {})[operator] = ack
    largest, report = 0, None
    for found in groups.values():
        claims = next(iter(found.values())).claims
        if not _was_asked(question, claims):
            continue
        tally = KeygenTally(
            request_id=claims.request_id,
            threshold=claims.threshold,
            participants=claims.participants,
            owner_id=question.owner_id,
        )
        outcomes: list[NodeOutcome[Acknowledgement]] = []
        for operator, ack in found.items():
            try:
                tally.record(operator, ack)
            except AcknowledgementError as error:
                outcomes.append(NodeOutcome(operator=operator, error=error))
            else:
                outcomes.append(NodeOutcome(operator=operator, answer=ack, summary=ack.summary))
        largest = max(largest, sum([outcome.is_success for outcome in outcomes]))
        # More than one, if a key generation that had been given up for another one ended well after all: any will do.
        with suppress(QuorumError):
            agreed = tally.verdict()
            report = KeygenReport(
                request_id=claims.request_id,
                key_id=agreed.key_id,
                public_key=agreed.public_key,
                threshold=claims.threshold,
                outcomes=(*outcomes, *failures),
            )
    if report is not None:
        return KeygenSettlement(report=report, is_certain=True, outcomes=report.outcomes)
    is_certain = largest + len(failures) < question.threshold.t
    return KeygenSettlement(report=None, is_certain=is_certain, outcomes=tuple(failures))


def _was_asked(question: KeygenQuestion, claims: KeygenClaims) -> bool:
    asked = question.threshold
    return (
        claims.request_id in request_ids(question.request_id)
        and claims.t == asked.t
        and (question.min_parties or asked.n) <= claims.n <= asked.n
        and len(claims.participants) == claims.n
    )
