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

from attrs import define, evolve, field, frozen

from dan_async._values import check_text, to_hex
from dan_async.crypto.hashes import tagged_hash
from dan_async.deadline import Deadline
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectError,
    DanError,
    DuplicateUserOperationError,
    UserOperationTimeoutError,
)
from dan_async.types import Hex
from dan_async.user_operation import user_operation_hash
from dan_async.userops.account_kinds import AccountKind
from dan_async.userops.bundler import Bundler
from dan_async.userops.paymasters import Operation
from dan_async.userops.sign_user_operation import UserOperationSigner

_log = logging.getLogger(__name__)

#: Bytes of a lane's key.
_KEY_BYTES = 24

#: Seconds between two looks at the chain's nonce.
_POLL_S = 0.25

#: Hashes of operations that are remembered as sent.
_MOST_SENT = 4096

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
    check_text("lane", name, least=0, most=256)
    return int.from_bytes(tagged_hash("dan_async nonce lane", seed, name.encode())[:_KEY_BYTES])


@define
class Turn:
    """A turn in a lane: the nonce to use, key included, and the hash of the operation that was sent with it, if any."""

    nonce: int
    sent: Hex | None = None


@define
class _Lane:
    key: int
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    next_nonce: int | None = None
    last_sent: Hex = ""


class NonceLanes:
    """
    The lanes of one account and signer.

    Args:
        seed: The lanes' keys are derived from it.
        fetch: Asks the entry point for the next nonce of a key.
        sleep: Waits; injected by tests.
    """

    def __init__(
        self,
        seed: bytes,
        fetch: Callable[[int, Deadline], Awaitable[int]],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._seed = seed
        self._fetch = fetch
        self._sleep = sleep
        self._lanes: dict[str, _Lane] = {}
        self._sent: OrderedDict[Hex, None] = OrderedDict()

    def key(self, name: str = "") -> int:
        """Return the key of a lane; see ``lane_key``."""
        return lane_key(self._seed, name)

    @asynccontextmanager
    async def turn(self, name: str = "", *, deadline: Deadline) -> AsyncIterator[Turn]:
        """
        Wait for the lane, and hold it while an operation is made and sent.

        The nonce is the chain's own, so whatever else used the lane is taken into account. While the operation that was
        sent before is not on the chain, its successor is not made: bundlers need not take both at once.

        Args:
            name: The lane.
            deadline: How long to wait.

        Raises:
            UserOperationTimeoutError: The lane's last operation is still not on the chain.
            DanError: The chain could not be asked.
        """
        lane = self._lanes.setdefault(name, _Lane(self.key(name)))
        async with lane.lock:
            turn = Turn(await self._next_nonce(lane, deadline))
            try:
                yield turn
            finally:
                if turn.sent is not None:
                    lane.next_nonce, lane.last_sent = turn.nonce + 1, turn.sent

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
        if not await self._pause(deadline):
            return False
        turn.nonce = max(turn.nonce, await self._fetch(self.key(name), deadline))
        return True

    def forget(self, name: str = "") -> None:
        """Stop waiting for a lane's last operation, which its bundler has dropped. The next one takes its nonce."""
        lane = self._lanes.get(name)
        if lane is not None:
            lane.next_nonce = None

    def note(self, user_operation_hash: Hex) -> None:
        """
        Note that an operation is about to be sent.

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
        """Take back a note: the operation was refused and may be sent again."""
        self._sent.pop(user_operation_hash, None)

    async def _next_nonce(self, lane: _Lane, deadline: Deadline) -> int:
        while True:
            nonce = await self._fetch(lane.key, deadline)
            if lane.next_nonce is None or nonce >= lane.next_nonce:
                return nonce
            if not await self._pause(deadline):
                raise UserOperationTimeoutError(
                    f"the lane waits for the user operation {lane.last_sent}, which is not on the chain yet",
                    hint="Wait longer, use another lane, or forget() the lane if the bundler has dropped the operation",
                    user_operation_hash=lane.last_sent,
                )

    async def _pause(self, deadline: Deadline) -> bool:
        """Wait a moment; return False at once if no time is left for it."""
        left = deadline.remaining()
        if left is not None and left <= _POLL_S:
            return False
        await self._sleep(_POLL_S)
        return True


@frozen(kw_only=True)
class OperationSender:
    """Signs and sends operations in their lanes; without a signer it sends signed ones only."""

    kind: AccountKind
    signer: UserOperationSigner | None
    bundler: Bundler
    lanes: NonceLanes
    chain_id: int

    async def send_in_lane(
        self, prepare: Callable[[int], Awaitable[Operation]], lane: str, deadline: Deadline
    ) -> Hex:
        """
        Make, sign and send an operation with the lane's next nonce, which *prepare* takes.

        If somebody else was quicker in the same lane, or the bundler's pool is full for this account at the moment, it is
        tried again: the same operation while its nonce is still the next one, a new one when that nonce is used up, so
        that the old one can never be executed beside it.
        """
        signer = self.signer
        if signer is None:
            raise ConfigurationError(
                "the account's signer cannot sign user operations",
                hint="Give a SessionSigner, or a wallet with sign_message such as LocalWallet",
            )
        async with self.lanes.turn(lane, deadline=deadline) as turn:
            signed: Operation | None = None
            while True:
                try:
                    if signed is None or signed.nonce != turn.nonce:
                        operation = await prepare(turn.nonce)
                        signature = await signer.sign_user_operation(
                            operation, entry_point=self.bundler.entry_point, chain_id=self.chain_id
                        )
                        signed = evolve(operation, signature=self.kind.wrap_signature(signature))
                    # From here on it may be on its way, and the lane waits for it unless it is known that it is not.
                    turn.sent = to_hex(self._hash(signed))
                    return await self.send(signed, deadline, is_new=True)
                except (BundlerError, ConnectError, DuplicateUserOperationError) as error:
                    turn.sent = None
                    if not (_is_race(error) and await self.lanes.look_again(lane, turn, deadline=deadline)):
                        raise

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
            operation,
            entry_point=self.bundler.entry_point,
            chain_id=self.chain_id,
            version=operation.version,
        )


def _is_race(error: DanError) -> bool:
    """Return whether somebody else is in the lane; with the very same operation, if their calls are the same."""
    return isinstance(error, DuplicateUserOperationError) or (
        isinstance(error, BundlerError) and error.entry_point_code == _NONCE_TAKEN
    )
