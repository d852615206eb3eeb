"""
The fuzzer: targets by name, inputs drawn by hypothesis from a corpus that is kept, and the loop that runs them.

A target's check returns a label of what became of an input, or raises if its property does not hold. An input with a label
that was not seen before joins the corpus for the rest of the run, so that later inputs start from it; so does one that was
found to break the property. ``--keep`` writes the corpus back into its folder.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import re
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from attrs import define, field, frozen
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dan_async.errors import DanError
from tests.strategies import foreign_texts, json_values

CORPUS = Path(__file__).parent / "corpus"

#: Entries of the corpus that a target keeps, and how long one may be as JSON.
MOST_KEPT = 48
LONGEST_KEPT = 2000

_BATCH_S = 4.0

Check = Callable[[Any], str]


@frozen
class Target:
    """Something that takes a stranger's input. ``opened`` yields its check, and keeps what that needs."""

    name: str
    inputs: Callable[[Sequence[Any]], st.SearchStrategy[Any]]
    opened: Callable[[], contextlib.AbstractContextManager[Check]]
    seeds: Callable[[], list[Any]] = list
    #: Whether the inputs are texts, bytes or lists of them, of which a corpus can be kept.
    is_kept: bool = True


TARGETS: dict[str, Target] = {}


def register(target: Target) -> None:
    assert target.name not in TARGETS
    TARGETS[target.name] = target


def outcome(error: DanError | None) -> str:
    """A label: the error's kind and what it says, without the values in it."""
    if error is None:
        return "taken"
    str(error).encode()
    repr(error)
    return f"{type(error).__name__}: {re.sub('[^A-Za-z ]+', ' ', str(error))[:60]}"


# --- the corpus -------------------------------------------------------------------------------------------------------


def _written(entry: Any) -> Any:
    if isinstance(entry, bytes):
        return {"hex": entry.hex()}
    return list(map(_written, entry)) if isinstance(entry, list | tuple) else entry


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return bytes.fromhex(value["hex"])
    return list(map(_read, value)) if isinstance(value, list) else value


def corpus_of(target: Target) -> list[Any]:
    path = CORPUS / f"{target.name}.json"
    kept = list(map(_read, json.loads(path.read_text()))) if target.is_kept and path.exists() else []
    return target.seeds() + kept


def keep(target: Target, entries: Sequence[Any]) -> None:
    """Write what is worth keeping: of too many the oldest half, which was chosen, and the newest."""
    seeds = target.seeds()
    found: list[str] = []
    for entry in entries:
        text = json.dumps(_written(entry))
        if entry not in seeds and len(text) <= LONGEST_KEPT and text not in found:
            found.append(text)
    CORPUS.mkdir(exist_ok=True)
    if len(found) > MOST_KEPT:
        found = found[: MOST_KEPT // 2] + found[-MOST_KEPT // 2 :]
    (CORPUS / f"{target.name}.json").write_text("[\n" + ",\n".join(found) + "\n]\n")


# --- inputs -----------------------------------------------------------------------------------------------------------


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, and in JSON texts inside it."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places_in(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value[:50]):
            yield from places_in(inner, (*path, index))
    elif isinstance(value, str) and value.startswith(("{", "[")):
        with contextlib.suppress(ValueError, RecursionError):
            yield from ((*path, None, *inner) for inner in places_in(json.loads(value)))


def changed(value: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    """The value with one place changed; None in a path steps into a JSON text."""
    if not path:
        return change(value)
    head, *rest = path
    if head is None:
        return json.dumps(changed(json.loads(value), rest, change), separators=(",", ":"), ensure_ascii=False)
    copied = value.copy()
    copied[head] = changed(value[head], rest, change)
    return copied


def _without_first(value: Any) -> Any:
    if isinstance(value, dict) and value:
        return dict(list(value.items())[1:])
    return value[1:] if isinstance(value, list | str) else None


def _twice(value: Any) -> Any:
    return value + value if isinstance(value, list | str) else [value, value]


_CHANGES = st.one_of(
    json_values().map(lambda new: lambda _: new),
    st.sampled_from([_without_first, _twice, lambda old: [old], lambda old: {"": old}, str, lambda _: None]),
    st.text("0123456789abcdefxX-", max_size=70).map(lambda new: lambda _: new),
    st.integers(0, 2**256).map(lambda new: lambda _: hex(new)),
)

_BITS = st.sampled_from(
    ["", "0", "-", "0x", '"', "\\", "{", "[", "]", ",", ":", "\x00", "é", "\u2028", "9" * 30]
)


@st.composite
def mutated_text(draw: st.DrawFn, seeds: Sequence[str]) -> str:
    """A text of the corpus, changed in up to four places: as JSON where it is, else in its characters."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        value = None
        if draw(st.integers(0, 3)):
            with contextlib.suppress(ValueError, RecursionError):
                value = json.loads(text)
        if isinstance(value, dict | list):
            places = list(places_in(value))
            place = places[draw(st.integers(0, len(places) - 1))]
            with contextlib.suppress(ValueError, RecursionError):
                text = json.dumps(changed(value, place, draw(_CHANGES)), separators=(",", ":"))
        else:
            at = draw(st.integers(0, len(text)))
            end = draw(st.sampled_from([at, at + 1, at + 8, len(text)]))
            new = draw(_BITS | st.text(max_size=4))
            text = text[:at] + new + text[end:]
    return text


def texts(seeds: Sequence[str]) -> st.SearchStrategy[str]:
    strange = foreign_texts().filter(lambda text: isinstance(text, str))
    return mutated_text(seeds) | strange if seeds else strange


@st.composite
def mutated_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = draw(st.sampled_from([at, at + 1, at + 4, at + 33, len(data)]))
        new = draw(
            st.binary(max_size=5)
            | st.sampled_from([bytes(32), b"\xff" * 33, data[: end - at], data[at:end] * 2])
        )
        data = data[:at] + new + data[end:]
    return data


def blobs(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    return mutated_bytes(seeds) | st.binary(max_size=200) if seeds else st.binary(max_size=200)


def rows(seeds: Sequence[Sequence[Any]]) -> st.SearchStrategy[list[Any]]:
    """Lists of texts or bytes, each from one of the corpus: some entries changed, one left out or said twice."""

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Any]:
        row = list(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(0, 2))):
            if not row:
                break
            at = draw(st.integers(0, len(row) - 1))
            what = draw(st.sampled_from(["change", "change", "drop", "twice", "swap"]))
            if what == "change":
                changing = mutated_bytes if isinstance(row[at], bytes) else mutated_text
                row[at] = draw(changing([row[at]]))
            elif what == "drop":
                del row[at]
            elif what == "twice":
                row.insert(at, row[at])
            else:
                row[at], row[-1] = row[-1], row[at]
        return row

    return drawn()


# --- running ----------------------------------------------------------------------------------------------------------


@define
class Run:
    """What came of one target."""

    target: Target
    inputs: int = 0
    seconds: float = 0.0
    labels: Counter[str] = field(factory=Counter)
    failures: list[str] = field(factory=list)
    corpus: list[Any] = field(factory=list)


class _LoudLog(logging.Handler):
    """Collects what no input may cause: errors in the log, and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        is_ban = ": banned: " in record.getMessage()  # that must be seen, and is no failure of the node's
        if record.exc_info or (record.levelno >= logging.ERROR and not is_ban):
            trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            self.seen.append(f"{record.name}: {record.getMessage()}\n{trace}")


def _loopback_only(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode(errors="replace") if isinstance(host, bytes) else host
    if name in {None, "localhost", "::1"} or str(name).startswith("127."):
        return _getaddrinfo(host, *arguments, **options)
    raise socket.gaierror("the fuzzer reaches loopback only")


_getaddrinfo = socket.getaddrinfo


@contextlib.contextmanager
def quiet() -> Iterator[Callable[[], None]]:
    """Yield a check that nothing was logged that must not be; names are looked up for loopback only."""
    log = _LoudLog()
    root = logging.getLogger()
    root.addHandler(log)
    try:
        with mock.patch("socket.getaddrinfo", _loopback_only):
            yield lambda: _assert_none(log)
    finally:
        root.removeHandler(log)


#: Where each failure was that has been noted.
_KNOWN: set[str] = set()


def _where(error: BaseException) -> str:
    """Tell failures apart: by kind, and by the last lines of the package and of the fuzzer that they passed."""
    lines = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "dan_async" in f.filename or "fuzz" in f.filename
    ]
    said = re.sub(r"[^A-Za-z ]+", " ", str(error))[:80] if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} {said} {[(f.name, f.lineno) for f in lines[-2:]]}"


def _assert_none(log: _LoudLog) -> None:
    seen, log.seen = log.seen, []
    assert not seen, "\n".join(seen)


def run(target: Target, *, number: int, seconds: float | None = None, examples: int | None = None) -> Run:
    """Give the target its corpus, then inputs made from it: so many, or for so long. *number* is the seed."""
    result = Run(target, corpus=corpus_of(target))
    begun = time.monotonic()
    numbers = random.Random(number)
    batch = examples or 50
    with quiet() as check_log, target.opened() as check:

        def tried(value: Any) -> None:
            nonlocal failing
            result.inputs += 1
            try:
                label = check(value)
                check_log()
            except Exception as error:
                where = _where(error)
                if where in _KNOWN:
                    return  # said once; there may be more to find
                failing = value, where
                raise
            if label not in result.labels and target.is_kept:
                learnt.append(value)
            result.labels[label] += 1

        def note(error: Exception) -> None:
            value, where = failing or (None, _where(error))
            _KNOWN.add(where)
            trace = "".join(traceback.format_exception(error))
            result.failures.append(f"{value!r}\n{trace[-6000:]}")

        learnt: list[Any] = []
        failing: Any = None
        for entry in list(result.corpus):
            try:
                tried(entry)
            except Exception as error:
                note(error)
        while True:
            inputs = target.inputs(result.corpus)
            learnt = []
            started = time.monotonic()
            ruled = settings(
                max_examples=batch,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
                print_blob=False,
            )
            try:
                seed(numbers.getrandbits(64))(ruled(given(inputs)(tried)))()
            except Exception as error:
                note(error)
                if target.is_kept:
                    learnt.append(failing[0])
            result.corpus += learnt
            if examples is not None or time.monotonic() - begun >= (seconds or 0.0):
                break
            spent = time.monotonic() - started
            batch = max(10, min(20_000, int(batch * _BATCH_S / max(spent, 0.01))))
    result.seconds = time.monotonic() - begun
    return result
