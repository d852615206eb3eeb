"""A PostgreSQL server of the tests' own: a fresh cluster in a temporary folder, reached by its Unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def find_binary(name: str) -> str | None:
    """Find a server program: Debian keeps it out of the PATH, one folder for each version."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).is_file():
            return str(folder / name)
    return shutil.which(name)


def server_user() -> str | None:
    """The user that the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    return None


@contextmanager
def running_cluster() -> Iterator[str]:
    """Start a cluster, give the URL of its database, stop it and remove it."""
    initdb, server = find_binary("initdb"), find_binary("pg_ctl")
    if initdb is None or server is None:
        reason = "PostgreSQL is not installed; Debian's package is postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    user = server_user()
    folder = Path(tempfile.mkdtemp(prefix="dan-pg-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"

        def run(*command: str) -> None:
            # The programs look at the folder they are started in, which the user may not be allowed to.
            subprocess.run(
                command, check=True, user=user, cwd=folder, timeout=50, stdout=subprocess.DEVNULL, env={}
            )

        run(initdb, "-D", str(data), "-U", "dan", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        run(server, "-D", str(data), "-l", str(folder / "log"), "-w", "-o", options, "start")
        try:
            yield f"postgresql://dan@/postgres?host={folder}"
        finally:
            run(server, "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
