"""The entry points of ERC-4337, at the same address on every chain."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dan_async.errors import InvalidFieldError
from dan_async.types import Address, EntryPointVersion

__all__ = ["ENTRY_POINTS", "version_of"]

#: Version -> the singleton contract's address.
ENTRY_POINTS: Mapping[EntryPointVersion, Address] = MappingProxyType(
    {
        "v0.6.0": Address("0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789"),
        "v0.7.0": Address("0x0000000071727De22E5E9d8BAf0edAc6f37da032"),
    }
)


def version_of(version: object) -> EntryPointVersion:
    """
    Read a version: ``"v0.6.0"`` or ``"v0.7.0"``, also without the v or the last zero.

    Raises:
        InvalidFieldError: It is another one.
    """
    if version in ("v0.6.0", "0.6.0", "0.6", "v0.6"):
        return "v0.6.0"
    if version in ("v0.7.0", "0.7.0", "0.7", "v0.7"):
        return "v0.7.0"
    raise InvalidFieldError("version", "must be v0.6.0 or v0.7.0")
