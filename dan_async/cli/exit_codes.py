"""What the command's exit codes mean, and which error gives which."""

from __future__ import annotations

from dan_async.errors import ConfigurationError, DanError

__all__ = ["DONE", "FAILED", "INTERRUPTED", "TERMINATED", "WRONG_INPUT", "ReportedCode", "exit_code_for"]

DONE = 0
#: The network, a node or the wallet did not do its part, or the result could not be written.
FAILED = 1
#: The input is wrong; nothing was sent.
WRONG_INPUT = 2
#: Ctrl-C, as shells number it: 128 + SIGINT.
INTERRUPTED = 130
#: 128 + SIGTERM.
TERMINATED = 143


class ReportedCode(int):
    """An exit code whose command has said itself what happened."""


def exit_code_for(error: DanError) -> int:
    """Give the exit code for an error of ours."""
    if isinstance(error, ConfigurationError):
        return WRONG_INPUT
    return FAILED
