"""What can go wrong with the owner's wallet; import these from ``dan_async.errors``."""

from __future__ import annotations

from dan_async._error_base import DanError


class WalletError(DanError):
    """The owner's wallet did not authorise the request. Nothing was created."""


class WalletRefusedError(WalletError):
    """The wallet, or the person in front of it, said no."""


class WalletTimeoutError(WalletError, TimeoutError):
    """The wallet did not answer in time."""


class WalletSignatureError(WalletError):
    """What the wallet returned is not a 65-byte recoverable signature."""


class WrongSignerError(WalletError):
    """The signature recovers to another address than the owner's."""
