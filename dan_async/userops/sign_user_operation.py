"""Signing user operations: the job, and the signers of a smart account: a DAN session, or a wallet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from attrs import evolve

from dan_async._json import dump
from dan_async._values import MAX_SAFE_INT, check_int, from_hex
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.errors import InvalidFieldError
from dan_async.permissions.checking import check_permissions
from dan_async.permissions.rules import parse_permissions, permissions_text
from dan_async.protocols.sign_request import RequestType, SignRequest
from dan_async.session import DanModuleInfo, session_of
from dan_async.types import Address, Clock, Hex, TimeSpan
from dan_async.user_operation import (
    ENTRY_POINTS,
    PackedUserOperation,
    UserOperationV06,
    UserOperationV07,
    check_entry_point,
    user_operation_hash,
)

Operation = TypeVar("Operation", bound=UserOperationV06 | UserOperationV07 | PackedUserOperation)


class MessageSigner(Protocol):
    """The part of ``DanClient`` that signing needs."""

    async def sign_message(
        self,
        message: Any,
        session: Any,
        *,
        request_type: str | None = None,
        entry_point: str | None = None,
        timeout: TimeSpan | None = None,
    ) -> Hex:
        """Sign a message with a session's key; see ``DanClient.sign_message``."""


async def sign_user_operation(
    user_op: Operation,
    session: DanModuleInfo | Mapping[str, Any],
    *,
    client: MessageSigner,
    entry_point: str | None = None,
    chain_id: int | None = None,
    permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
    clock: Clock = time.time,
    timeout: TimeSpan | None = None,
) -> Operation:
    """
    Have t of the nodes sign a user operation with the session's key.

    The nodes see the operation itself and check it against the session's permissions. They sign the personal message
    (EIP-191) over the operation's hash, which SimpleAccount and the accounts like it expect of their owner. It was checked
    that the signature recovers to the session's address.

    Args:
        user_op: The operation, complete except for its signature: nothing may change after it is signed.
        session: The session, as a payload, a ``DanModuleInfo`` or its JSON as a dict.
        client: An open ``DanClient``.
        entry_point: The entry point's address; the well-known one of the operation's version if None. The one of another
            version is refused.
        chain_id: The chain; the session's if None.
        permissions: The session's permissions, as they were given at key generation: then an operation outside of them is
            refused here, before anything is sent. The nodes check them in any case.
        clock: The wall clock, for the permissions.
        timeout: Seconds for the whole call, instead of the client's.

    Returns:
        The operation with its signature: 65 bytes r, s, v.

    Raises:
        InvalidFieldError: An argument is wrong, or the chain is not known or not the session's; nothing was sent.
        PermissionDeniedError: The *permissions* given do not allow it; nothing was sent.
        DanError: As for ``DanClient.sign_message``; also when the nodes' permissions do not allow the operation.

    Example:
        >>> signed = await sign_user_operation(operation, session, client=dan)
    """
    if not isinstance(user_op, UserOperationV06 | UserOperationV07 | PackedUserOperation):
        raise InvalidFieldError("user_op", f"must be a user operation, not {type(user_op).__name__}")
    info = session_of(session)
    chain = info.chain_id if chain_id is None else chain_id
    if chain is None:
        raise InvalidFieldError("chain_id", "is missing, and the session does not say it either")
    usual = ENTRY_POINTS[user_op.version]
    contract = check_entry_point(entry_point or usual, user_op.version, named=entry_point)
    message = {
        "userOperation": user_op.to_dict(),
        "entryPointVersion": user_op.version,
        "entryPointAddress": contract,
        "chainId": check_int("chain_id", chain, least=1, most=MAX_SAFE_INT),
    }
    text = permissions_text(permissions)
    if text is not None:
        request = SignRequest(request_type=RequestType.USER_OPERATION, message=dump(message))
        check_permissions(parse_permissions(text), request, now=clock())
    named = {} if contract == usual else {"entry_point": contract}
    signature = await client.sign_message(
        message, info, request_type="accountAbstractionTx", timeout=timeout, **named
    )
    return evolve(user_op, signature=from_hex(signature, field="signature", length=65))


@runtime_checkable
class UserOperationSigner(Protocol):
    """Anything that can sign a user operation."""

    @property
    def address(self) -> str:
        """The signer's address: the smart account's owner."""

    @property
    def lane_seed(self) -> bytes:
        """The seed of its nonce lanes: different for signers that work side by side; no secret."""

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        """
        Return 65 bytes r, s, v over the personal message of the operation's hash.

        Args:
            operation: The operation.
            entry_point: The entry point's address.
            chain_id: The chain.

        Raises:
            DanError: The signer does not sign it.
        """


@runtime_checkable
class MessageWallet(Protocol):
    """A wallet that signs personal messages, as ``LocalWallet`` does."""

    @property
    def address(self) -> str:
        """The owner's address."""

    async def sign_message(self, message: bytes) -> str:
        """Sign a personal message (EIP-191)."""


class SessionSigner:
    """
    Signs with a session's distributed key.

    Its nonce lanes come from the session key and the ephemeral key: agents that hold different ephemeral keys of one session
    never meet in a lane.

    Args:
        client: An open ``DanClient``; it is not closed here.
        session: The session, as a payload, a ``DanModuleInfo`` or its JSON as a dict.
        permissions: The session's permissions: then an operation that the nodes will not sign is refused before it is sent.

    Raises:
        InvalidFieldError: It is no session, or the permissions are not in their form.
    """

    def __init__(
        self,
        client: MessageSigner,
        session: DanModuleInfo | Mapping[str, Any],
        *,
        permissions: str | Mapping[str, Any] | Sequence[Any] | None = None,
    ) -> None:
        self._client = client
        self._permissions = permissions_text(permissions)
        if self._permissions is not None:
            parse_permissions(self._permissions)
        self.session = session_of(session)
        self.address = self.session.session_key_eoa
        eph_id, algorithm = self.session.eph_id, self.session.eph_alg or "secp256k1"
        if eph_id is None:
            with EphemeralKey.from_hex(self.session.hex_eph_sk_without_0x, algorithm) as key:
                eph_id = key.default_id
        self.lane_seed = f"{self.address} {eph_id}".encode()

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        """
        Have the nodes sign; see ``dan_async.userops.sign_user_operation``.

        Raises:
            PermissionDeniedError: The permissions do not allow it.
            DanError: The nodes did not sign.
        """
        signed = await sign_user_operation(
            operation,
            self.session,
            client=self._client,
            entry_point=entry_point,
            chain_id=chain_id,
            permissions=self._permissions,
        )
        return signed.signature

    def __repr__(self) -> str:
        return f"SessionSigner({self.address!r})"


class WalletSigner:
    """
    Signs with a wallet that signs personal messages.

    Args:
        wallet: The wallet.
    """

    def __init__(self, wallet: MessageWallet) -> None:
        if not isinstance(wallet, MessageWallet) or not isinstance(wallet.address, str):
            raise InvalidFieldError("wallet", "must have an address and an async sign_message()")
        self._wallet = wallet
        self.address = Address(wallet.address)
        self.lane_seed = wallet.address.encode()

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        """
        Have the wallet sign.

        Raises:
            WalletError: It did not.
            InvalidFieldError: Its answer is no signature.
        """
        digest = user_operation_hash(
            operation, entry_point=entry_point, chain_id=chain_id, version=operation.version
        )
        return from_hex(await self._wallet.sign_message(digest), field="signature", length=65)

    def __repr__(self) -> str:
        return f"WalletSigner({self.address!r})"
