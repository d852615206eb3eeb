"""The command without its extra. Imports nothing of it, so that it also runs where the extra is really missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_the_command_names_what_to_install(missing: str) -> None:
    """One line with the pip command, exit code 2, no traceback."""
    code = f"import sys; sys.modules[{missing!r}] = None; from dan_async.cli.__main__ import main; sys.exit(main(['keygen']))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert 'pip install "dan-async[cli]"' in line


@pytest.mark.parametrize("missing", ["sqlalchemy", "alembic", "greenlet", "aiosqlite"])
def test_a_store_names_what_to_install(missing: str, tmp_path: Path) -> None:
    """Whichever of the extra's packages is not there."""
    pytest.importorskip("typer")
    (tmp_path / "keys.db").touch()
    (tmp_path / "keys.db.key").touch(mode=0o600)
    (tmp_path / "keys.db.key").write_text("07" * 32)
    args = ["sessions", "list", "--store", f"sqlite:///{tmp_path}/keys.db"]
    code = f"import sys; sys.modules[{missing!r}] = None; from dan_async.cli.__main__ import main; sys.exit(main({args}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert 'pip install "dan-async[storage]"' in line


def test_an_agents_tools_name_what_to_install() -> None:
    """The command and the adapter to web3.py, each with its extra."""
    pytest.importorskip("typer")
    code = "import sys; sys.modules[{0!r}] = None; {1}"
    for missing, extra, run in (
        ("mcp_types", "mcp", "from dan_async.cli.__main__ import main; sys.exit(main(['mcp']))"),
        ("web3", "web3", "from dan_async.web3 import session_middleware; session_middleware(None, {})"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.format(missing, run)],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode != 0
        assert f'pip install "dan-async[{extra}]"' in done.stderr.splitlines()[-1]


def test_ctrl_c_during_start_up_gives_130() -> None:
    """Also while modules are still being imported."""
    code = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "dan_async.errors":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from dan_async.cli.__main__ import main
sys.exit(main([]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
