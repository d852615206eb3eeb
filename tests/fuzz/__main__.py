"""Run the fuzzer: ``python -m tests.fuzz --minutes 60``, or only some targets, or the same inputs again by their seed."""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback

from tests.fuzz import doors, targets  # noqa: F401 - they register themselves
from tests.fuzz.engine import TARGETS, Run, keep, run

_TURN_S = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=None, help="repeat a run's inputs")
    parser.add_argument("--keep", action="store_true", help="write what was learnt into the corpus")
    options = parser.parse_args()
    number = secrets.randbits(32) if options.seed is None else options.seed
    names = options.target or sorted(TARGETS)
    print(f"seed {number}, {options.minutes:g} minutes, {len(names)} targets", flush=True)
    end = time.monotonic() + 60 * options.minutes
    totals = {name: Run(TARGETS[name]) for name in names}
    turn = 0
    while turn == 0 or time.monotonic() < end:
        share = max(1.0, (end - time.monotonic()) / len(names))
        for name in names:
            if turn and time.monotonic() >= end:
                break
            total = totals[name]
            try:
                found = run(TARGETS[name], number=number + turn, seconds=min(_TURN_S, share))
            except Exception:
                total.failures.append(traceback.format_exc())
                print(f"FAILURE of {name}: not run\n{total.failures[-1]}", flush=True)
                continue
            total.inputs += found.inputs
            total.seconds += found.seconds
            total.labels += found.labels
            total.failures += found.failures
            if options.keep and TARGETS[name].is_kept:
                keep(TARGETS[name], found.corpus)
            print(
                f"{name}: {total.inputs} inputs in {total.seconds:.0f} s, {len(total.labels)} outcomes, "
                f"{len(total.failures)} failures",
                flush=True,
            )
            for failure in found.failures:
                print(f"FAILURE of {name}: {failure}", flush=True)
        turn += 1
    print("--- all together", flush=True)
    for name, total in totals.items():
        print(
            f"{name:24} {total.inputs:9} inputs {len(total.labels):5} outcomes {len(total.failures):3} failures"
        )
    print(f"{sum(total.inputs for total in totals.values())} inputs")
    return 1 if any(total.failures for total in totals.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
