"""Result file to Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import BUSY

__all__ = ["facts_line", "render", "write_into_readme"]

_README = Path(__file__).parent / "README.md"
_BEGIN, _END = "<!-- results: begin -->", "<!-- results: end -->"

#: The workloads whose CPU per node is compared.
_SMALL, _LARGE = "2-of-3", "11-of-20"

#: Percentile -> the operations it takes for one of them to lie beyond it.
_PERCENTILES = {"p50": 2, "p95": 20, "p99": 100}


def render(result: dict[str, Any]) -> str:
    """Give all tables of a result file."""
    sections = (
        ("Client CPU time per keygen, in ms", _client_rows(result), _per_node(result)),
        ("Latency per keygen against stub nodes, in ms", _stub_latency_rows(result), ""),
        ("Keygen on the devnet, times in ms", _devnet_rows(result), ""),
        ("Fan-out: every node answers after a fixed delay, times in ms", _fan_out_rows(result), ""),
    )
    parts = [facts_line(result)]
    for heading, rows, remark in sections:
        if len(rows) > 1:
            parts += [f"### {heading}", _table(rows)] + ([remark] if remark else [])
    return "\n\n".join(parts)


def write_into_readme(text: str) -> None:
    """
    Put the tables between the markers of benchmarks/README.md.

    Raises:
        ValueError: The markers are not there.
    """
    page = _README.read_text()
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError("benchmarks/README.md has lost its markers")
    _README.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}")


def _table(rows: Sequence[Sequence[str]]) -> str:
    header, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|" + "---|" + "--:|" * (len(rows[0]) - 1)
    return "\n".join((header, rule, *body))


def facts_line(result: dict[str, Any]) -> str:
    """Say of a result file what it was measured on."""
    facts = result["platform"]
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    changed = " with uncommitted changes" if result["is_changed"] else ""
    load = facts.get("load_before")
    busy = "" if load is None or load <= BUSY else f" **Measured on a busy machine** (load average {load})."
    return (
        f"Commit {result['commit']}{changed}, {result['effort']} run. {facts['python']}, {facts['system']} on "
        f"{facts['machine']}, {facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB. {packages}.{busy}"
    )


def _of(result: dict[str, Any], peer: str) -> list[dict[str, Any]]:
    return [entry for entry in result["entries"] if entry["peer"] == peer]


def _same(entries: Iterable[dict[str, Any]], like: dict[str, Any]) -> dict[str, Any]:
    wanted = (like["workload"], like["concurrency"])
    return next(entry for entry in entries if (entry["workload"], entry["concurrency"]) == wanted)


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _percentiles(entry: dict[str, Any]) -> list[str]:
    """Give the percentiles that this many operations can show."""
    return [
        _ms(entry["latency_ms"][name]) if entry["operations"] >= least else "too few"
        for name, least in _PERCENTILES.items()
    ]


def _client_rows(result: dict[str, Any]) -> list[list[str]]:
    header = [
        "Workload",
        "in flight",
        "client",
        "floor",
        "curve",
        "client / floor",
        "client / (floor + curve)",
    ]
    rows = [[*header, "bytes out", "bytes in"]]
    floors, curves = _of(result, "floor"), _of(result, "curve")
    for entry in _of(result, "stub"):
        sizes = result["bytes"][entry["workload"]]
        rows.append(
            [
                entry["workload"],
                str(entry["concurrency"]),
                _ms(entry["cpu_ms"]["median"]),
                _ms(_same(floors, entry)["cpu_ms"]["median"]),
                _ms(_same(curves, entry)["cpu_ms"]["median"]),
                f"{entry['to_floor']:.2f}",
                f"{entry['to_floor_and_curve']:.2f}",
                str(sizes["sent"]),
                str(sizes["received"]),
            ]
        )
    return rows


def _per_node(result: dict[str, Any]) -> str:
    entries = {(entry["workload"], entry["concurrency"]): entry for entry in _of(result, "stub")}
    lines = []
    for workload, concurrency in entries:
        if workload == _SMALL and (_LARGE, concurrency) in entries:
            small, large = (
                [value / entry["n"] for value in entry["cpu_ms"]["turns"]]
                for entry in (entries[_SMALL, concurrency], entries[_LARGE, concurrency])
            )
            ratio = statistics.median(b / a for a, b in zip(small, large, strict=True))
            lines.append(
                f"Client CPU per node with {concurrency} in flight: {statistics.median(small):.3f} ms at {_SMALL}, "
                f"{statistics.median(large):.3f} ms at {_LARGE}; ratio {ratio:.2f}."
            )
    return "\n".join(lines)


def _stub_latency_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [
        ["Workload", "in flight", *_PERCENTILES, *(f"floor {name}" for name in _PERCENTILES), "per second"]
    ]
    floors = _of(result, "floor")
    for entry in _of(result, "stub"):
        names = [entry["workload"], str(entry["concurrency"])]
        floor = _same(floors, entry)
        rows.append([*names, *_percentiles(entry), *_percentiles(floor), f"{entry['per_second']:.0f}"])
    return rows


def _devnet_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [
        ["Workload", "in flight", "keygens", *_PERCENTILES, "client CPU", "CPU of one node", "per second"]
    ]
    for entry in _of(result, "devnet"):
        node = entry.get("node_cpu_ms")
        rows.append(
            [
                entry["workload"],
                str(entry["concurrency"]),
                str(entry["operations"]),
                *_percentiles(entry),
                _ms(entry["cpu_ms"]["median"]),
                "unknown" if node is None else _ms(node),
                f"{entry['per_second']:.1f}",
            ]
        )
    return rows


def _fan_out_rows(result: dict[str, Any]) -> list[list[str]]:
    rows = [["Workload", "in flight", "who", *_PERCENTILES]]
    in_turn = _of(result, "floor, in turn")
    for entry in in_turn:
        for name, others in (
            ("client", _of(result, "stub")),
            ("floor, all at once", _of(result, "floor")),
            ("floor, node after node", in_turn),
        ):
            found = _same(others, entry)
            rows.append([entry["workload"], str(entry["concurrency"]), name, *_percentiles(found)])
    return rows
