"""A PostgreSQL server of the tests' own, reached by its Unix socket only, and a proxy before it that loses answers."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

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


def restart_cluster(url: str) -> None:
    """Have a cluster of ``running_cluster`` drop everything that is under way, as in a crash, and come back. Blocks."""
    folder, server = Path(url.partition("?host=")[2]), find_binary("pg_ctl")
    assert server is not None
    subprocess.run(
        (server, "-D", str(folder / "data"), "-l", str(folder / "log"), "-m", "immediate", "-w", "restart"),
        check=True,
        user=server_user(),
        cwd=folder,
        timeout=50,
        stdout=subprocess.DEVNULL,
        env={},
    )


class FaultProxy:
    """
    A proxy before a server's Unix socket that loses answers on command. Use as an async context manager.

    Args:
        url: The server's URL, as ``running_cluster`` gives it; ``url`` is then that of the proxy.
    """

    def __init__(self, url: str) -> None:
        base, _, folder = url.partition("?host=")
        self._target = f"{folder}/.s.PGSQL.5432"
        self._folder = tempfile.mkdtemp(prefix="dan-pg-proxy-")
        self.url = f"{base}?host={self._folder}"
        self._is_silent = self._refuses = False
        self._lose: bytes | None = None
        self._mute: bytes | None = None
        self._ends: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.accepted = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._on_connection, f"{self._folder}/.s.PGSQL.5432")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._folder, ignore_errors=True)

    def cut(self) -> None:
        """Break every connection at once."""
        for pair in self._ends:
            for writer in pair:
                writer.transport.abort()

    def silence(self) -> None:
        """Let nothing through to the client any more over the connections that there are; new ones work."""
        self._is_silent = True
        self._silenced = set(self._ends)

    def refuse(self) -> None:
        """Let nothing through over new connections either."""
        self._refuses = True

    def lose_answer_to(self, statement: bytes, *, times: int = 1) -> None:
        """Break the connection when the server has answered *statement*, before the client hears of it."""
        self._lose, self._times = statement, times

    def fall_silent_at(self, statement: bytes) -> None:
        """Let nothing more through to the client over a connection on which *statement* was sent; b"" is all of them."""
        self._mute = statement

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        except OSError:  # it is being restarted
            writer.transport.abort()
            return
        pair = (writer, server_writer)
        self._ends.append(pair)
        loses, mutes = asyncio.Event(), asyncio.Event()

        async def to_server() -> None:
            while data := await reader.read(65536):
                if self._mute is not None and self._mute in data:
                    mutes.set()
                if self._lose is not None and self._lose in data and self.lost < self._times:
                    self.lost += 1
                    loses.set()
                server_writer.write(data)

        async def to_client() -> None:
            while data := await server_reader.read(65536):
                if loses.is_set():
                    writer.transport.abort()
                    return
                if mutes.is_set() or (self._is_silent and (self._refuses or pair in self._silenced)):
                    continue
                writer.write(data)

        tasks = {asyncio.create_task(to_server()), asyncio.create_task(to_client())}
        self._tasks |= tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for end in pair:
            end.transport.abort()
        self._tasks -= tasks
        self._ends.remove(pair)
