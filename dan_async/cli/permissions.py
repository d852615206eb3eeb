"""``--permissions``: JSON text, or @ and the name of a file that holds it."""

from __future__ import annotations

from pathlib import Path

from dan_async.cli.screen import mask_keys
from dan_async.errors import ConfigurationError, InvalidFieldError
from dan_async.models.permissions import permissions_text

__all__ = ["read_permissions"]

_LONGEST = 64 * 1024


def read_permissions(option: str | None) -> str | None:
    """
    Give the JSON text that the option names, unchanged: the nodes keep it letter for letter.

    Raises:
        ConfigurationError: The file cannot be read, or the text is not a JSON object or list.
    """
    if option is None:
        return None
    text = _read(option[1:]) if option.startswith("@") else option
    try:
        return permissions_text(text)
    except InvalidFieldError as error:
        problem = error.message.removeprefix(error.field + " ")
        raise ConfigurationError(
            f"--permissions {problem}", hint="Give JSON text, or @ and a file name"
        ) from None


def _read(name: str) -> str:
    shown = mask_keys(name) or "an empty name"
    try:
        with Path(name).open("rb") as file:
            data = file.read(4 * _LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the path is not valid"
        raise ConfigurationError(f"--permissions: cannot read {shown}: {reason}") from None
    if len(data) > 4 * _LONGEST:
        raise ConfigurationError(f"--permissions: {shown} is longer than {_LONGEST} characters")
    try:
        return data.decode().strip()
    except UnicodeDecodeError:
        raise ConfigurationError(f"--permissions: {shown} is not UTF-8 text") from None
