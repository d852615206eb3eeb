"""
Faults as text, as the command line takes them: ``delay:2s±500ms``, ``drop-reply:1,methods=dan_keygen``. Pure.

A fault is ``name[:value[,option=value…]]``. Time spans are ``2s``, ``500ms`` or ``1m``, and seconds without a unit; several
methods are joined with ``+``. The first value may stand without its option's name where a fault has an obvious one.
The faults and their options are in ``kinds``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs

from dan_async.devnet.faults.kinds import KINDS, Fault, Option, Spelling
from dan_async.errors import ConfigurationError, InvalidFieldError

#: The names, as the command line takes them.
FAULT_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)

_LIST = f"The faults are {', '.join(FAULT_NAMES)}"

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)?\Z", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}\Z", re.ASCII)
_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}
_LONGEST = 500

# --- values -----------------------------------------------------------------------------------------------------------


def _to_seconds(text: str) -> float:
    match = _SPAN.match(text)
    if match is None:
        raise ConfigurationError("must be a time span", hint="For example 2s, 500ms or 1m")
    return float(match[1]) * _FACTORS[match[2]]


def _to_number(text: str) -> int:
    if not _NUMBER.match(text):
        raise ConfigurationError("must be a whole number")
    return int(text)


def _to_retry_after(text: str) -> int | None:
    if text == "none":
        return None
    seconds = _to_seconds(text)
    if seconds != int(seconds):
        raise ConfigurationError("must be whole seconds", hint="HTTP knows no others")
    return int(seconds)


def _to_methods(text: str) -> tuple[str, ...]:
    methods = tuple(text.split("+"))
    if not all(methods):
        raise ConfigurationError("must be names of RPC methods joined with +")
    return methods


def _spell_seconds(seconds: float | None) -> str:
    return "none" if seconds is None else f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


#: How each kind of value is read and written.
_SPELLINGS: Mapping[Spelling, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "number": (_to_number, str),
    "seconds": (_to_seconds, _spell_seconds),
    "retry-after": (_to_retry_after, _spell_seconds),
    "methods": (_to_methods, "+".join),
}


def _read(option: Option, text: str) -> Any:
    if isinstance(option.value, str):
        return _SPELLINGS[option.value][0](text)
    if text not in option.value:
        raise ConfigurationError(f"must be one of {', '.join(option.value)}")
    return text


# --- faults -----------------------------------------------------------------------------------------------------------


def parse_node_fault(text: str) -> tuple[int, Fault]:
    """Read a fault and its node's place in ``Devnet.nodes``, from 0: ``2=delay:2s``. The error does not repeat the text."""
    node, separator, fault = text.partition("=")
    if not separator or not _NUMBER.match(node.strip()):
        raise ConfigurationError(
            "must have the form NODE=FAULT, with the node's number",
            hint="For example 2=delay:2s; nodes are numbered from 0",
        )
    return int(node), parse_fault(fault)


def parse_fault(text: str) -> Fault:
    """Read a fault; if there is no such fault, or it does not take that, the error says what there is."""
    if len(text) > _LONGEST:
        raise ConfigurationError(f"must be at most {_LONGEST} characters long")
    name, _, rest = (part.strip() for part in text.partition(":"))
    kind = next((kind for kind in KINDS if kind.name == name), None)
    if kind is None:
        raise ConfigurationError(f"there is no fault of that name{_nearest(name, FAULT_NAMES)}", hint=_LIST)
    try:
        return kind(**_values(kind, rest))
    except InvalidFieldError as error:
        names = {field.name: option.name for option, field in _fields(kind).items()}
        option = names.get(error.field, error.field)
        raise ConfigurationError(f"{name}: {option} {error.problem}", hint=error.hint) from None


def spell_fault(fault: Fault) -> str:
    """Write a fault so that ``parse_fault`` reads the same one."""
    parts: list[str] = []
    for option, field in _fields(type(fault)).items():
        value = getattr(fault, field.name)
        if value != field.default:
            spelt = _SPELLINGS[option.value][1](value) if isinstance(option.value, str) else value
            parts.append(spelt if option.name == fault.first and not parts else f"{option.name}={spelt}")
    return f"{fault.name}:{','.join(parts)}" if parts else fault.name


def _fields(kind: type[Fault]) -> dict[Option, attrs.Attribute[Any]]:
    """Return the options that a fault takes, those of all faults last."""
    shared = {"methods": kind.takes_methods, "times": kind.takes_times}
    fields = sorted(attrs.fields(kind), key=lambda field: field.name in shared)
    return {field.metadata["option"]: field for field in fields if shared.get(field.name, True)}


def _values(kind: type[Fault], text: str) -> dict[str, Any]:
    fields = _fields(kind)
    options = {option.name: option for option in fields}
    hint = f"For example {kind.example or kind.name}"
    values: dict[str, Any] = {}

    def read(name: str, value: str) -> None:
        try:
            values[fields[options[name]].name] = _read(options[name], value)
        except ConfigurationError as error:
            raise ConfigurationError(f"{kind.name}: {name} {error.message}", hint=error.hint) from None

    for place, part in enumerate(part.strip() for part in text.split(",")) if text else ():
        name, separator, value = part.partition("=")
        if not separator:
            name, value = (kind.first, part) if place == 0 else (part, "")
        if name not in options or (not separator and place > 0):
            taken = f"takes {', '.join(options)} and nothing else" if options else "takes no options"
            taken += _nearest(name, options)
            raise ConfigurationError(f"{kind.name}: {taken}", hint=hint)
        halves = re.split("±|[+]-", value)
        if options[name].spread and len(halves) == 2:
            value = halves[0]
            read(options[name].spread, halves[1])
        read(name, value)
    for option, field in fields.items():
        if field.default is attrs.NOTHING and field.name not in values:
            raise ConfigurationError(f"{kind.name}: {option.missing}", hint=hint)
    return values


def _nearest(name: str, names: Collection[str]) -> str:
    near = [] if name in names else difflib.get_close_matches(name[:40], names, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
