"""
Faults as text, as the command line takes them: ``delay:2s±500ms``, ``drop-reply:1,methods=dan_keygen``. Pure.

A fault is ``name[:value[,option=value…]]``. Time spans are ``2s``, ``500ms`` or ``1m``, and seconds without a unit; several
methods are joined with ``+``. The first value may stand without its option's name where a fault has an obvious one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

from attrs import field, fields, frozen

from dan_async.devnet.faults.kinds import (
    GARBAGE_FORMS,
    AcknowledgeOtherKey,
    CheatInSigning,
    Crash,
    CrashInSigning,
    DealWrongShare,
    Delay,
    Disconnect,
    DropReply,
    DropRequest,
    Equivocate,
    ExpireNonces,
    FallSilent,
    Fault,
    ForgeShares,
    ForgeSignature,
    HttpError,
    RefuseConnections,
    SendGarbage,
    SilentInSigning,
    Trickle,
    WrongSignatureShare,
)
from dan_async.errors import ConfigurationError, InvalidFieldError

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m)?\Z", re.ASCII)

_NUMBER = re.compile(r"[0-9]{1,9}\Z", re.ASCII)

_FACTORS = {"ms": 0.001, "s": 1.0, "m": 60.0, None: 1.0}

_LONGEST = 500


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


def _to_form(text: str) -> str:
    if text not in GARBAGE_FORMS:
        raise ConfigurationError(f"must be one of {', '.join(GARBAGE_FORMS)}")
    return text


@frozen
class _Spelling:
    """
    How one kind of fault is spelt.

    Args:
        kind: The fault.
        options: Field, parser of its value; the option is called as the key says.
        first: The option whose value may stand without its name.
    """

    kind: type[Fault]
    options: Mapping[str, tuple[str, Callable[[str], Any]]] = field(factory=dict)
    first: str = "times"

    @property
    def all_options(self) -> dict[str, tuple[str, Callable[[str], Any]]]:
        shared: dict[str, tuple[str, Callable[[str], Any]]] = {}
        if self.kind.takes_methods:
            shared["methods"] = ("methods", _to_methods)
        if self.kind.takes_times:
            shared["times"] = ("times", _to_number)
        return {**self.options, **shared}


_SPELLINGS: dict[str, _Spelling] = {
    "delay": _Spelling(
        Delay, {"seconds": ("seconds", _to_seconds), "jitter": ("jitter_s", _to_seconds)}, "seconds"
    ),
    "drop-request": _Spelling(DropRequest),
    "drop-reply": _Spelling(DropReply),
    "disconnect": _Spelling(Disconnect),
    "refuse": _Spelling(RefuseConnections),
    "crash": _Spelling(Crash, {"round": ("at_round", _to_number), "restart": ("restart_after", _to_seconds)}),
    "garbage": _Spelling(SendGarbage, {"form": ("form", _to_form)}, "form"),
    "trickle": _Spelling(Trickle, {"interval": ("seconds", _to_seconds)}, "interval"),
    "http": _Spelling(
        HttpError,
        {"status": ("status", _to_number), "retry-after": ("retry_after", _to_retry_after)},
        "status",
    ),
    "expired-nonces": _Spelling(ExpireNonces),
    "forged-signature": _Spelling(ForgeSignature),
    "forged-shares": _Spelling(ForgeShares),
    "other-key": _Spelling(AcknowledgeOtherKey),
    "wrong-share": _Spelling(DealWrongShare),
    "equivocate": _Spelling(Equivocate),
    "silent": _Spelling(FallSilent, {"round": ("round", _to_number)}, "round"),
    "signing-crash": _Spelling(
        CrashInSigning,
        {"round": ("at_round", _to_number), "restart": ("restart_after", _to_seconds)},
        "round",
    ),
    "signing-silent": _Spelling(SilentInSigning, {"round": ("round", _to_number)}, "round"),
    "signing-cheat": _Spelling(CheatInSigning),
    "wrong-signature-share": _Spelling(WrongSignatureShare),
}

#: The names, as the command line takes them.
FAULT_NAMES: tuple[str, ...] = tuple(_SPELLINGS)


def parse_node_fault(text: str) -> tuple[int, Fault]:
    """
    Read a fault and the node it is for: ``2=delay:2s``.

    Returns:
        The node's place in ``Devnet.nodes``, from 0, and the fault.

    Raises:
        ConfigurationError: The text is no such thing. It is not repeated.
    """
    node, separator, fault = text.partition("=")
    if not separator or not _NUMBER.match(node.strip()):
        raise ConfigurationError(
            "must have the form NODE=FAULT, with the node's number",
            hint="For example 2=delay:2s; nodes are numbered from 0",
        )
    return int(node), parse_fault(fault)


def parse_fault(text: str) -> Fault:
    """
    Read a fault.

    Raises:
        ConfigurationError: There is no such fault, or it does not take that; the error says what there is.
    """
    if len(text) > _LONGEST:
        raise ConfigurationError(f"must be at most {_LONGEST} characters long")
    name, _, rest = (part.strip() for part in text.partition(":"))
    spelling = _SPELLINGS.get(name)
    if spelling is None:
        raise ConfigurationError(f"there is no fault of that name{_nearest(name)}", hint=_LIST)
    try:
        return spelling.kind(**_values(name, spelling, rest))
    except InvalidFieldError as error:
        option = next((o for o, (f, _) in spelling.all_options.items() if f == error.field), error.field)
        problem = error.message.removeprefix(f"{error.field} ")
        raise ConfigurationError(f"{name}: {option} {problem}", hint=error.hint) from None


_LIST = f"The faults are {', '.join(FAULT_NAMES)}"


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name[:40], FAULT_NAMES, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _values(name: str, spelling: _Spelling, rest: str) -> dict[str, Any]:
    options = spelling.all_options
    values: dict[str, Any] = {}
    for place, part in enumerate(part.strip() for part in rest.split(",")) if rest else ():
        option, separator, value = part.partition("=")
        if not separator:
            option, value = (spelling.first, part) if place == 0 else (part, "")
        if option not in options or (not separator and place > 0):
            raise ConfigurationError(f"{name}: {_taken(options)}", hint=f"For example {_EXAMPLES[name]}")
        if option == "seconds" and (halves := re.split("±|[+]-", value)) and len(halves) == 2:
            value, values["jitter_s"] = halves[0], _parsed(name, "jitter", _to_seconds, halves[1])
        target, parse = options[option]
        values[target] = _parsed(name, option, parse, value)
    if spelling.kind is Delay and "seconds" not in values:
        raise ConfigurationError("delay: must say for how long", hint=f"For example {_EXAMPLES[name]}")
    return values


def _parsed(name: str, option: str, parse: Callable[[str], Any], value: str) -> Any:
    try:
        return parse(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {option} {error.message}", hint=error.hint) from None


def _taken(options: Mapping[str, object]) -> str:
    return f"takes {', '.join(options)} and nothing else" if options else "takes no options"


_EXAMPLES = {
    "delay": "delay:2s±500ms or delay:2s,methods=dan_keygen",
    "drop-request": "drop-request:1,methods=dan_keygen",
    "drop-reply": "drop-reply:1",
    "disconnect": "disconnect:1",
    "refuse": "refuse",
    "crash": "crash:round=2,restart=1s",
    "garbage": "garbage:binary",
    "trickle": "trickle:100ms",
    "http": "http:503,retry-after=2s",
    "expired-nonces": "expired-nonces",
    "forged-signature": "forged-signature",
    "forged-shares": "forged-shares",
    "other-key": "other-key",
    "wrong-share": "wrong-share",
    "equivocate": "equivocate",
    "silent": "silent:round=2",
    "signing-crash": "signing-crash:round=2,restart=1s",
    "signing-silent": "signing-silent:round=2",
    "signing-cheat": "signing-cheat",
    "wrong-signature-share": "wrong-signature-share:1",
}


def spell_fault(fault: Fault) -> str:
    """Write a fault so that ``parse_fault`` reads the same one."""
    name, spelling = next((n, s) for n, s in _SPELLINGS.items() if s.kind is type(fault))
    defaults = {attribute.name: attribute.default for attribute in fields(type(fault))}
    parts: list[str] = []
    for option, (target, parse) in spelling.all_options.items():
        value = getattr(fault, target)
        if value == defaults[target]:
            continue
        if value is None:  # a default that was taken away; only Retry-After has one
            value = "none"
        elif parse in (_to_seconds, _to_retry_after):
            value = f"{value:.9f}".rstrip("0").rstrip(".") + "s"
        elif parse is _to_methods:
            value = "+".join(value)
        parts.append(str(value) if option == spelling.first and not parts else f"{option}={value}")
    return f"{name}:{','.join(parts)}" if parts else name
