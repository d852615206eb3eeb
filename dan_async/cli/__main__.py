"""
Entry point of the ``dan-async`` command.

Nothing of the extra ``cli`` is imported before it is known to be there, so that a plain installation answers with the line
that installs it. All imports happen inside ``main``, so that Ctrl-C ends in one line at any moment.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 done, 1 the network or wallet failed, 2 wrong input, 130 interrupted."""
    try:
        if sys.stderr is None:  # it is closed: whoever started the command wants no messages
            sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - it stays open
        if sys.stdout is None:
            sys.stderr.write(
                "error: standard output is closed. Let it go to /dev/null if nothing is to read it\n"
            )
            return 2
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")  # for what its encoding has no characters for
        given = sys.argv[1:] if argv is None else argv
        if list(given) in (["--version"], ["-v"]):
            from dan_async._version import __version__

            sys.stdout.write(f"dan-async {__version__}\n")
            return 0
        from dan_async.errors import MissingExtraError, require_extra

        try:
            for module in ("typer", "rich"):
                require_extra(module, extra="cli", purpose="The dan-async command")
        except MissingExtraError as error:
            sys.stderr.write(f"error: {error}\n")
            return 2
        from dan_async.cli.app import run

        return run(argv)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
