"""Optional dependencies: imported where they are used, with an error that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from dan_async.errors import MissingExtraError


def require_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """
    Import an optional dependency.

    Args:
        module: The module to import.
        extra: The extra of dan-async that brings it.
        purpose: What needs it, as the start of the error's sentence.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs the package {module.partition('.')[0]}, which is not installed",
            hint=f'Install it with: pip install "dan-async[{extra}]"',
        ) from error
