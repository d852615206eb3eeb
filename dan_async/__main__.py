"""``python -m dan_async``: the ``dan-async`` command."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("dan_async.cli", run_name="__main__", alter_sys=True)
