"""Who signs a smart account's operations: a DAN session, or a wallet that signs personal messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from dan_async._hex import from_hex
from dan_async.crypto.ephemeral_key import EphemeralKey
from dan_async.crypto.user_operation_hash import user_operation_hash
from dan_async.models.permissions import permissions_text
from dan_async.models.session import DanModuleInfo
from dan_async.models.user_operation import UserOperationV06, UserOperationV07
from dan_async.permissions import parse_permissions
from dan_async.types import Address
from dan_async.userops.sign_user_operation import MessageSigner, session_of, sign_user_operation

__all__ = ["MessageWallet", "SessionSigner", "UserOperationSigner", "WalletSigner"]

_SIGNATURE_LENGTH = 65


@runtime_checkable
class UserOperationSigner(Protocol):
    """
    Anything that can sign a user operation.

    Attributes:
        address: Who signs: the smart account's owner.
        lane_seed: What its nonce lanes are derived from: different for signers that work side by side.
    """

    @property
    def address(self) -> Address:
        """Give the signer's address."""
        ...

    @property
    def lane_seed(self) -> bytes:
        """Give what nonce lanes are derived from; no secret."""
        ...

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        """Give 65 bytes r, s, v over the personal message of the operation's hash."""
        ...


@runtime_checkable
class MessageWallet(Protocol):
    """A wallet that signs personal messages, as ``LocalWallet`` does."""

    @property
    def address(self) -> str:
        """Give the owner's address."""
        ...

    async def sign_message(self, message: bytes) -> str:
        """Sign a personal message (EIP-191)."""
        ...


class SessionSigner:
    """
    Signs with a session's distributed key.

    Its nonce lanes come from the session key and the ephemeral key: agents that hold different ephemeral keys of one session
    never meet in a lane.

    Args:
        client: An open ``DanClient``; it is not closed here.
        session: The session, as a payload, a ``DanModuleInfo`` or the seed's dict.
        permissions: The session's permissions, to be told before anything is sent what the nodes will not sign.

    Raises:
        InvalidFieldError: It is no session, or the permissions are not in their form.
    """

    __slots__ = ("_client", "_permissions", "address", "lane_seed", "session")

    address: Address
    lane_seed: bytes
    session: DanModuleInfo

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
        self.lane_seed = f"{self.address} {self.session.eph_id or _default_eph_id(self.session)}".encode()

    async def sign_user_operation(
        self, operation: UserOperationV06 | UserOperationV07, *, entry_point: Address, chain_id: int
    ) -> bytes:
        """
        Have the nodes sign; see ``dan_async.userops.sign_user_operation``.

        Raises:
            PermissionDeniedError: The permissions do not allow it.
            DanError: They did not.
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


def _default_eph_id(session: DanModuleInfo) -> str:
    algorithm = session.eph_alg or "secp256k1"
    with EphemeralKey.from_hex(session.hex_eph_sk_without_0x, algorithm) as key:
        return key.default_id


class WalletSigner:
    """
    Signs with a wallet that signs personal messages.

    Args:
        wallet: The wallet.
    """

    __slots__ = ("_wallet", "address", "lane_seed")

    address: Address
    lane_seed: bytes

    def __init__(self, wallet: MessageWallet) -> None:
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
            InvalidFieldError: What it gave is no signature.
        """
        digest = user_operation_hash(
            operation, entry_point=entry_point, chain_id=chain_id, version=operation.version
        )
        return from_hex(await self._wallet.sign_message(digest), field="signature", length=_SIGNATURE_LENGTH)

    def __repr__(self) -> str:
        return f"WalletSigner({self.address!r})"
