"""A daemon of a soak: what ``autoscaler run`` puts together, by the soak's clock and at a quicker pace.

It is a process of its own, forked by a server that has imported the program once, so that hundreds of them can be
started and killed in minutes. Besides being killed and stopped from outside at any moment, it can be told to do so
itself at the two points that matter most and last for a millisecond: a purchase is reserved, a purchase is claimed.
"""

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from autoscaler.daemon import Daemon
from autoscaler.ledger import LedgerError, open_ledger
from autoscaler.logs import configure_logging
from autoscaler.settings import load_settings
from autoscaler.web import create_app, serve
from autoscaler.wiring import Pace, build
from tests.soak.clock import MovedClock

PACE = Pace(
    look_kept_for=timedelta(seconds=1), look_interval=timedelta(milliseconds=500), settle_every=timedelta(seconds=1)
)
LEDGER_AWAY = 3  # the exit status of `autoscaler run` where the ledger cannot be opened
ENDS_WITHIN = 40  # seconds after SIGTERM
_TAIL = 4000

_processes = get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Point(StrEnum):
    """Where a replica halts."""

    RESERVED = "reserved"  # its row is committed and not claimed
    CLAIMED = "claimed"  # its claim is committed and not a byte is sent


class Replica:
    """A daemon under way. ``number`` tells it from the others of its soak."""

    def __init__(
        self, number: int, folder: Path, environ: Mapping[str, str], clock: MovedClock, *, begin: bool
    ) -> None:
        self.name = f"daemon-{number}"
        self.log = folder / f"{self.name}.log"
        self._halt = folder / f"{self.name}.halt"
        self._process = _processes.Process(
            target=_work, args=(dict(environ), self.log, clock.file, self._halt, begin), name=self.name, daemon=True
        )
        self._process.start()

    @property
    def status(self) -> int | None:
        """Its exit status; None: it runs, or stands still."""
        return self._process.exitcode

    def kill(self) -> None:
        """End it with SIGKILL; harmless when it has ended."""
        self._process.kill()
        self._process.join()

    def stop(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def halt_at(self, point: Point, how: signal.Signals) -> None:
        """Let it send itself a signal when it comes to a point next."""
        written = self._halt.with_suffix(".new")
        written.write_text(f"{point} {how.value}", encoding="utf-8")
        written.rename(self._halt)

    @property
    def halted(self) -> bool:
        """Whether it came to its point, or to its end."""
        return self.status is not None or not self._halt.exists()

    def let_off(self) -> bool:
        """Halt at no point any more; False: it has come to its point already."""
        try:
            self._halt.unlink()
        except FileNotFoundError:
            return False
        return True

    def end(self) -> int | None:
        """SIGTERM; its exit status, or None where it does not end: then its log says where its threads are."""
        self._process.terminate()
        self._process.join(ENDS_WITHIN)
        if self.status is None:
            self._signal(signal.SIGUSR1)
            time.sleep(1)
        return self.status

    def tail(self) -> str:
        """The end of what it wrote."""
        return self.log.read_text(errors="replace")[-_TAIL:] if self.log.exists() else ""

    def _signal(self, number: signal.Signals) -> None:
        if self._process.pid is not None and self.status is None:
            os.kill(self._process.pid, number)


class _Halting:
    """A ledger that may halt its process right after a commit; else the ledger itself."""

    def __init__(self, ledger: Any, file: Path) -> None:
        self._ledger = ledger
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def reserve(self, *args: Any, **kwargs: Any) -> Any:
        evaluation, purchase = self._ledger.reserve(*args, **kwargs)
        if purchase is not None:
            self._reached(Point.RESERVED)
        return evaluation, purchase

    def begin_sending(self, *args: Any, **kwargs: Any) -> Any:
        why_not = self._ledger.begin_sending(*args, **kwargs)
        if why_not is None:
            self._reached(Point.CLAIMED)
        return why_not

    def _reached(self, point: Point) -> None:
        try:
            where, how = self._file.read_text(encoding="utf-8").split()
            if where != point:
                return
            self._file.unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), int(how))


def _work(environ: Mapping[str, str], log: Path, clock_file: Path, halt: Path, begin: bool) -> None:
    """As ``autoscaler run`` does."""
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    faulthandler.register(signal.SIGUSR1)
    settings, clock = load_settings(environ), MovedClock(clock_file)
    configure_logging("json", "info")
    try:
        ledger = _Halting(open_ledger(settings.ledger().get_secret_value(), clock=clock), halt)
        parts = build(settings, environ, clock=clock, pace=PACE, ledger=ledger)
        daemon = Daemon(parts)
        app = create_app(daemon, parts.registry, parts.desk())
        with serve(app, settings.listen.host, settings.listen.port):
            daemon.run(begin=begin)
    except LedgerError as error:
        print(error, flush=True)
        sys.exit(LEDGER_AWAY)
