"""
``python -m tests.soak --seconds 600 --seed 7 --report soak.json``; with ``--batches`` that of tests/soak/batches.py.

Exit code 0 if everything held, 1 if not; the report says what.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import secrets
import sys
from pathlib import Path

from tests.soak.batches import batches
from tests.soak.soak import Plan, soak


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="soak", description="Run jobs against a network in which things go wrong."
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="how long; ten minutes if not given")
    parser.add_argument("--seed", type=int, default=None, help="of everything random; a new one if not given")
    parser.add_argument("--nodes", type=int, default=5, help="how many nodes")
    parser.add_argument("--workers", type=int, default=6, help="how many jobs side by side")
    parser.add_argument("--report", type=Path, default=Path("soak-report.json"), help="where the report goes")
    parser.add_argument(
        "--batches",
        action="store_true",
        help="two runs of one batch over PostgreSQL instead; tests/soak/batches.py",
    )
    options = parser.parse_args()
    logging.getLogger("dan_async").addHandler(logging.NullHandler())  # failures are what it is all about
    seed = secrets.randbelow(2**32) if options.seed is None else options.seed
    plan = Plan(seconds=options.seconds, seed=seed, nodes=options.nodes, workers=options.workers)
    print(f"seed {seed}, {options.seconds:g} s", flush=True)
    running = batches(options.seconds, seed) if options.batches else soak(plan)
    report = asyncio.run(running).to_dict()
    options.report.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name in ("results", "failures", "chaos"):
        print(f"{name}: {report[name]}")
    for problem in report["problems"]:
        print(f"PROBLEM: {problem}")
    print(f"the report is in {options.report}")
    return 0 if report["isGood"] else 1


if __name__ == "__main__":
    sys.exit(main())
