"""A real PostgreSQL on loopback, for tests: started in a directory of its own, killed, restarted, cut off, stopped.

The server refuses to run as root, so root runs it as nobody. It is set as the README asks: nothing that was committed
is lost, whatever dies. Its text sorts by a language's rules, as most servers' does, so that a test sees code that
counts on the order of bytes.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Self

import psycopg

_USER = "autoscaler"
_PATIENCE = timedelta(seconds=30)  # recovery after a kill included


def binaries() -> Path | None:
    """The folder of the newest server's programs, which Debian keeps off PATH; None: there is none."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdigit()], default=None)


class PostgresServer:
    """One PostgreSQL. Use it as a context manager; ``stop`` or ``kill``, and ``start`` make an outage in between."""

    def __init__(self, *, options: Sequence[str] = ()) -> None:
        """Start it and wait until it answers; RuntimeError with the end of its log if it does not.

        ``options`` are settings, such as ``fsync=off``.
        """
        programs = binaries()
        if programs is None:
            raise RuntimeError("no PostgreSQL server on this machine")
        self._programs = programs
        self._directory = Path(tempfile.mkdtemp(prefix="autoscaler-postgres-"))
        self._as: tuple[str, ...] = ()
        if os.geteuid() == 0:
            shutil.chown(self._directory, "nobody", "nogroup")
            self._as = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        self._options = tuple(options)
        self._log = self._directory / "log"
        self._names = count(1)
        self.port = _free_port()
        locale = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
        self.run("initdb", "--pgdata=data", f"--username={_USER}", "--auth=trust", *locale)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def url(self, database: str, port: int | None = None) -> str:
        """The address of a database as AUTOSCALER_LEDGER names it; through a proxy on another port, if one is given."""
        return f"postgresql+psycopg://{_USER}@127.0.0.1:{port or self.port}/{database}"

    def create_database(self, *settings: str) -> str:
        """The name of a new and empty database, with settings of its own, such as ``synchronous_commit = off``."""
        name = f"ledger_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        for setting in settings:
            self.execute(f"ALTER DATABASE {name} SET {setting}")
        return name

    def execute(self, statement: str, *parameters: object, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement as the superuser; its rows, if it returns any."""
        where = f"host=127.0.0.1 port={self.port} user={_USER} dbname={database} application_name=test"
        with psycopg.connect(where, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs, as the user it runs as; RuntimeError with what it says if it fails."""
        done = subprocess.run(
            [*self._as, str(self._programs / program), *arguments], cwd=self._directory, capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr[-2000:]}")

    def cut_connections(self, database: str) -> int:
        """End every connection to a database but the tests' own; how many there were."""
        return len(
            self.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = %s AND application_name <> 'test'",
                database,
            )
        )

    def start(self) -> None:
        """Start it, again with the data there are; see ``__init__``."""
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            f"unix_socket_directories={self._directory}",
            "fsync=on",
            "synchronous_commit=on",
            "shared_buffers=32MB",
            *self._options,
        )
        give_up = time.monotonic() + _PATIENCE.total_seconds()
        while time.monotonic() < give_up:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [
                        *self._as,
                        str(self._programs / "postgres"),
                        f"-D{self._directory / 'data'}",
                        *(f"-c{each}" for each in settings),
                    ],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"},
                    cwd=self._directory,
                )
            # Right after a kill it refuses to start: processes of its predecessor are still at the data.
            if self._answers(give_up):
                return
        self.kill()
        raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """End it in order, its clients' transactions rolled back; harmless when it has ended. Its data stay."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash of its machine would; harmless when it has ended. Its data stay."""
        self._end(signal.SIGKILL)

    def restart(self, *, standby: bool = False) -> None:
        """End it in order and start it again; as a standby of nobody, which may be read, if asked to."""
        self.stop()
        signal_file = self._directory / "data" / "standby.signal"
        signal_file.touch() if standby else signal_file.unlink(missing_ok=True)
        self.start()

    def _end(self, how: signal.Signals) -> None:
        self._process.send_signal(how)
        self._process.wait(timeout=_PATIENCE.total_seconds())

    def _answers(self, give_up: float) -> bool:
        while self._process.poll() is None and time.monotonic() < give_up:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        time.sleep(0.05)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
