"""Signs and sends operations in their lanes, and holds its own where others use the same lane."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from attrs import evolve, frozen

from dan_async._hex import to_hex
from dan_async._tasks import Deadline
from dan_async.crypto.user_operation_hash import user_operation_hash
from dan_async.errors import (
    BundlerError,
    ConfigurationError,
    ConnectError,
    DanError,
    DuplicateUserOperationError,
)
from dan_async.types import Address, Hex
from dan_async.userops.account_kinds import AccountKind
from dan_async.userops.bundler import Bundler
from dan_async.userops.nonce_lanes import NonceLanes
from dan_async.userops.paymasters import Operation
from dan_async.userops.signers import UserOperationSigner

__all__ = ["OperationSender"]

_log = logging.getLogger(__name__)

#: The entry point's code for a nonce that is not the next one. Bundlers use it for one that is taken in their pool, too.
_NONCE_TAKEN = "AA25"


@frozen(kw_only=True)
class OperationSender:
    """
    What signing and sending takes.

    Args:
        kind: What kind of account it is for.
        signer: Who signs; None for an account that is only looked at.
        bundler: Where operations go.
        lanes: Gives the nonces.
        entry_point: The entry point.
        chain_id: The chain.
    """

    kind: AccountKind
    signer: UserOperationSigner | None
    bundler: Bundler
    lanes: NonceLanes
    entry_point: Address
    chain_id: int

    async def send_in_lane(
        self, prepare: Callable[[int], Awaitable[Operation]], lane: str, deadline: Deadline
    ) -> Hex:
        """
        Make, sign and send an operation with the lane's next nonce.

        If somebody else was quicker in the same lane, or the bundler's pool has no room for this account at the moment, it
        is tried again: the same operation while its nonce is still the next one, a new one when that nonce is used up, so
        that the old one can never be executed beside it.

        Args:
            prepare: Builds the operation for a nonce.
            lane: The lane.
            deadline: The job's.

        Raises:
            ConfigurationError: Nobody can sign.
            DanError: As for ``SmartAccountClient.send_user_operation``.
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
                            operation, entry_point=self.entry_point, chain_id=self.chain_id
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
        """
        Send a signed operation.

        Args:
            operation: The operation.
            deadline: The job's.
            is_new: Whether it was made just now: then it is an error if the bundler has it already.

        Raises:
            DuplicateUserOperationError: It was sent before.
            BundlerError: It was refused.
            UserOperationTimeoutError: The reply was lost.
        """
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
            operation, entry_point=self.entry_point, chain_id=self.chain_id, version=operation.version
        )


def _is_race(error: DanError) -> bool:
    """Tell whether somebody else is in the lane; with the very same operation, if their calls are the same."""
    return isinstance(error, DuplicateUserOperationError) or (
        isinstance(error, BundlerError) and error.entry_point_code == _NONCE_TAKEN
    )
