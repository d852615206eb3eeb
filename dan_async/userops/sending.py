"""
Sending user operations in nonce lanes: many of one account at the same time, each lane in its own order.

ERC-4337 ("Semi-abstracted Nonce Support") divides a nonce into a key of 192 bits and a sequence of 64 bits. Operations with
different keys do not wait for each other; those of one key are executed in sequence. Here a key is derived from the signer
and a lane's name: agents with sessions of their own never collide, and an agent finds its lanes again after a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from attrs import define, evolve, field, frozen

from dan_async._values import check_instance, check_text, to_hex
from dan_async.crypto.hashes import keccak256, tagged_hash
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectError,
    DuplicateUserOperationError,
    ProtocolError,
    TransportError,
    UserOperationInDoubtError,
    UserOperationTimeoutError,
)
from dan_async.types import Hex
from dan_async.user_operation import user_operation_hash
from dan_async.userops.account_kinds import AccountKind
from dan_async.userops.bundler import Bundler, in_doubt
from dan_async.userops.paymasters import Operation
from dan_async.userops.service import pause
from dan_async.userops.sign_user_operation import UserOperationSigner

_log = logging.getLogger(__name__)

#: Bytes of a lane's key.
_KEY_BYTES = 24

#: Hashes of operations that are remembered as sent, and operations of each lane that are remembered as doubtful.
_MOST_SENT = 4096

#: Operations of each lane that are settled, and may be doubted again.
_MOST_SETTLED = 256

#: Nonces that the same calls are signed under, at most, in one call: each further one because the chain showed that
#: somebody else had used the one before.
_MOST_NONCES = 4

#: The entry point's code for a nonce that is not the next one. Bundlers use it for one that is taken in their pool, too.
_NONCE_TAKEN = "AA25"


def lane_key(seed: bytes, name: str = "") -> int:
    """
    Return the 192-bit key of a lane.

    Args:
        seed: The signer's.
        name: The lane's name: any text up to 256 characters; different names are different lanes.

    Raises:
        InvalidFieldError: The name is not such a text.
    """
    check_instance("seed", seed, bytes)
    check_text("lane", name, least=0, most=256)
    return int.from_bytes(tagged_hash("dan_async nonce lane", seed, name.encode())[:_KEY_BYTES])


class Doubt(NamedTuple):
    """The nonce and the hash of the calls of an operation that left, and that nobody was told to wait for."""

    nonce: int
    calls: bytes


@define
class Turn:
    """
    A turn in a lane: the nonce to use, key included; the hash of the operation sent with it, if any, and that of its calls.

    *doubts* are the lane's: the operations that were refused or cut off after they had left, by their hashes.
    """

    nonce: int
    sent: Hex | None = None
    calls: bytes = b""
    doubts: dict[Hex, Doubt] = field(factory=dict)


@define
class _Lane:
    key: int
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    next_nonce: int | None = None
    last_sent: Hex = ""
    last_calls: bytes = b""
    doubts: dict[Hex, Doubt] = field(factory=dict)
    #: Those that were settled last: the caller of their caller may yet go away without hearing of them.
    settled: dict[Hex, Doubt] = field(factory=dict)


def _remember(
    doubts: dict[Hex, Doubt], user_operation_hash: Hex, doubt: Doubt, most: int = _MOST_SENT
) -> None:
    doubts[user_operation_hash] = doubt
    if len(doubts) > most:
        del doubts[next(iter(doubts))]


class NonceLanes:
    """
    The lanes of one account and signer.

    Args:
        seed: The lanes' keys are derived from it.
        fetch: Asks the entry point for the next nonce of a key.
        place: Makes an entry point's key of a lane's own number, for accounts whose keys mean more than a lane.
        sleep: Waits; injected by tests.
    """

    def __init__(
        self,
        seed: bytes,
        fetch: Callable[[int, Deadline], Awaitable[int]],
        *,
        place: Callable[[int], int] = int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._seed = seed
        self._fetch = fetch
        self._place = place
        self._sleep = sleep
        self._lanes: dict[str, _Lane] = {}
        self._sent: OrderedDict[Hex, None] = OrderedDict()

    def key(self, name: str = "") -> int:
        """
        Return the entry point's key of a lane: that of ``lane_key``, in its place.

        Args:
            name: The lane; empty for the usual one.
        """
        return self._place(lane_key(self._seed, name))

    @asynccontextmanager
    async def turn(self, name: str = "", *, deadline: Deadline) -> AsyncIterator[Turn]:
        """
        Wait for the lane, and hold it while an operation is made and sent.

        The nonce is the chain's own, so whatever else used the lane is taken into account. While the operation that was
        sent before is not on the chain, its successor is not made: bundlers need not take both at once.

        Args:
            name: The lane.
            deadline: How long to wait.

        Returns:
            The turn: the nonce to use, and what to say of it afterwards.

        Raises:
            UserOperationTimeoutError: The lane's last operation is still not on the chain.
            DanError: The chain could not be asked.
        """
        lane = self._lanes.setdefault(name, _Lane(self.key(name)))
        async with lane.lock:
            turn = Turn(await self._next_nonce(lane, deadline), doubts=lane.doubts)
            try:
                yield turn
            finally:
                if turn.sent is not None:
                    lane.next_nonce, lane.last_sent, lane.last_calls = turn.nonce + 1, turn.sent, turn.calls

    def settle(self, name: str, user_operation_hash: str | None) -> None:
        """
        Doubt an operation no longer: its caller knows its hash, and that it may have been executed.

        Args:
            name: The lane.
            user_operation_hash: The operation; None if there is none.
        """
        lane = self._lanes.get(name)
        if lane is not None and user_operation_hash in lane.doubts:
            doubt = lane.doubts.pop(user_operation_hash)
            _remember(lane.settled, user_operation_hash, doubt, _MOST_SETTLED)

    def doubt_again(self, name: str, user_operation_hash: str) -> None:
        """
        Take back that an operation is settled: whoever waited for it was cancelled, and nobody heard of its hash.

        Args:
            name: The lane.
            user_operation_hash: The operation.
        """
        lane = self._lanes.get(name)
        if lane is not None and user_operation_hash in lane.settled:
            _remember(lane.doubts, user_operation_hash, lane.settled.pop(user_operation_hash))

    async def look_again(self, name: str, turn: Turn, *, deadline: Deadline) -> bool:
        """
        Wait a moment and ask the chain again, within a turn: somebody else seems to be in the lane.

        Args:
            name: The lane.
            turn: The turn; its nonce becomes the chain's.
            deadline: How long to wait.

        Returns:
            False if no time is left.

        Raises:
            DanError: The chain could not be asked.
        """
        if not await pause(deadline, self._sleep):
            return False
        turn.nonce = max(turn.nonce, await self._fetch(self.key(name), deadline))
        return True

    def forget(self, name: str = "", *, user_operation_hash: str | None = None) -> bool:
        """
        Stop waiting for a lane's last operation, which its bundler has dropped. The next one takes its nonce.

        Should the chain show that it was executed all the same, the same calls are not made again.

        Args:
            name: The lane; empty for the usual one.
            user_operation_hash: The operation; None for the last one, whichever it is.

        Returns:
            False if that operation is not the one that the lane waits for: then nothing is changed. If another one was sent
            since, the chain has shown that its nonce is used.
        """
        lane = self._lanes.get(name)
        if lane is None or lane.next_nonce is None or user_operation_hash not in (None, lane.last_sent):
            return False
        lane.doubts[lane.last_sent] = Doubt(lane.next_nonce - 1, lane.last_calls)
        lane.next_nonce = None
        return True

    def note(self, user_operation_hash: Hex) -> None:
        """
        Note that an operation is about to be sent.

        Args:
            user_operation_hash: The operation's hash.

        Raises:
            DuplicateUserOperationError: It was sent before.
        """
        if user_operation_hash in self._sent:
            raise DuplicateUserOperationError(
                f"the user operation {user_operation_hash} was sent before",
                hint="Wait for its receipt. For the same calls once more, make a new operation: it gets its own nonce",
                user_operation_hash=user_operation_hash,
            )
        self._sent[user_operation_hash] = None
        if len(self._sent) > _MOST_SENT:
            self._sent.popitem(last=False)

    def unnote(self, user_operation_hash: Hex) -> None:
        """
        Take back a note: the operation was refused and may be sent again.

        Args:
            user_operation_hash: The operation's hash.
        """
        self._sent.pop(user_operation_hash, None)

    async def _next_nonce(self, lane: _Lane, deadline: Deadline) -> int:
        while True:
            nonce = await self._fetch(lane.key, deadline)
            if lane.next_nonce is None or nonce >= lane.next_nonce:
                return nonce
            if not await pause(deadline, self._sleep):
                raise UserOperationTimeoutError(
                    f"nothing was sent: the lane waits for the user operation {lane.last_sent}, which is not on the"
                    " chain yet",
                    hint="Wait longer, use another lane, or forget() the lane if the bundler has dropped the operation",
                    user_operation_hash=lane.last_sent,
                )


@frozen(kw_only=True)
class OperationSender:
    """Signs and sends operations in their lanes; without a signer it sends signed ones only."""

    kind: AccountKind
    signer: UserOperationSigner | None
    bundler: Bundler
    lanes: NonceLanes
    chain_id: int
    users_of_nonce: Callable[[int, Deadline], Awaitable[frozenset[str]]]

    async def send_in_lane(
        self,
        prepare: Callable[[int], Awaitable[Operation]],
        lane: str,
        deadline: Deadline,
        *,
        call_data: bytes,
        left: list[Hex],
    ) -> Hex:
        """
        Make, sign and send an operation with the lane's next nonce, which *prepare* takes.

        If somebody else was quicker in the same lane, or the bundler's pool is full for this account at the moment, it is
        tried again: the same operation while its nonce is still the next one, and a new one only when the chain shows that
        another operation has used that nonce. A bundler's word is not enough: it may hold what it refuses, and execute it.

        *left* is filled with the hashes that may have reached the bundler, for an error that comes from outside.
        """
        signer = self.signer
        if signer is None:
            raise ConfigurationError(
                "the account's signer cannot sign user operations",
                hint="Give a SessionSigner, or a wallet with sign_message such as LocalWallet",
            )
        calls = keccak256(call_data)
        async with self.lanes.turn(lane, deadline=deadline) as turn:
            signed: Operation | None = None
            nonces: set[int] = set()
            while True:
                try:
                    if signed is None or signed.nonce != turn.nonce:
                        executed = await self._find_executed(turn, calls, deadline)
                        if executed in left:
                            return executed
                        if executed is not None:
                            raise DuplicateUserOperationError(
                                f"the user operation {executed} of an earlier attempt has made the same calls",
                                hint="That attempt failed or was cancelled. To make the calls once more, send them again",
                                user_operation_hash=executed,
                            )
                        left.clear()
                        nonces.add(turn.nonce)
                        operation = await prepare(turn.nonce)
                        signature = await signer.sign_user_operation(
                            operation, entry_point=self.bundler.entry_point, chain_id=self.chain_id
                        )
                        signed = evolve(operation, signature=self.kind.wrap_signature(signature))
                    return await self._offer(turn, signed, calls, deadline, left)
                except (BundlerError, ConnectError, UserOperationInDoubtError) as error:
                    sent, turn.sent = turn.sent, None
                    refusal = error.__cause__ if isinstance(error, UserOperationInDoubtError) else error
                    # Somebody else is in the lane; or the operation itself is, after a reply that was lost.
                    is_taken = isinstance(refusal, BundlerError) and refusal.entry_point_code == _NONCE_TAKEN
                    is_race = is_taken and len(nonces) < _MOST_NONCES
                    if not (is_race and await self.lanes.look_again(lane, turn, deadline=deadline)):
                        if isinstance(error, UserOperationInDoubtError):
                            turn.sent = sent
                        raise

    async def _offer(
        self, turn: Turn, signed: Operation, calls: bytes, deadline: Deadline, left: list[Hex]
    ) -> Hex:
        """Send an operation in its turn. From here on it may be on its way; the lane waits for it unless it is refused."""
        own = turn.sent = to_hex(self._hash(signed))
        turn.calls = calls
        is_new = own not in turn.doubts
        _remember(turn.doubts, own, Doubt(signed.nonce, calls))
        left.append(own)
        try:
            return await self.send(signed, deadline, is_new=is_new)
        except ConnectError:
            if is_new:  # it never left
                del turn.doubts[own]
                left.remove(own)
            raise

    async def _find_executed(self, turn: Turn, calls: bytes, deadline: Deadline) -> Hex | None:
        """
        Return an operation that left with the same calls and another nonce, if the chain shows that it was executed.

        If there is none, the chain has shown another user for the nonce of each of them.
        """
        for sent, doubt in tuple(turn.doubts.items()):
            if doubt.calls == calls and doubt.nonce != turn.nonce:
                users = await self._wait_for_users(sent, doubt.nonce, deadline)
                del turn.doubts[sent]
                if sent in users:
                    return sent
        return None

    async def _wait_for_users(self, sent: Hex, nonce: int, deadline: Deadline) -> frozenset[str]:
        while True:
            try:
                users = await self.users_of_nonce(nonce, deadline)
            except (BundlerError, TransportError, ProtocolError) as error:
                raise in_doubt(sent, error.message) from error
            if users:
                return users
            if not await pause(deadline):
                raise in_doubt(sent, "the chain's node does not show which operation has used its nonce")

    async def send(self, operation: Operation, deadline: Deadline, *, is_new: bool = False) -> Hex:
        """Send a signed operation; with *is_new* it is an error if the bundler has it already."""
        digest = self._hash(operation)
        own = to_hex(digest)
        self.lanes.note(own)
        try:
            sent = await self.bundler.send(operation, expected=digest, deadline=deadline, is_new=is_new)
        except BaseException:
            self.lanes.unnote(own)  # sending the same operation again is safe: it is known by its hash
            raise
        _log.debug("user operation %s of %s was sent", own, operation.sender)
        return sent

    def _hash(self, operation: Operation) -> bytes:
        return user_operation_hash(
            operation, entry_point=self.bundler.entry_point, chain_id=self.chain_id, version=operation.version
        )
