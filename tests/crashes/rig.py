"""A rig: what one course after the other needs, a cloud, a ledger's file and a clock."""

import gc
import socket
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from autoscaler.cloud import Cloud
from autoscaler.ledger import SqlLedger, open_ledger
from autoscaler.sandbox import TEST_CREDENTIALS, SandboxCloud
from autoscaler.signing import Credential
from tests.crashes.course import NOON, Course, Outcome, Plan
from tests.crashes.effects import Network
from tests.crashes.replica import SharedClock
from tests.crashes.troubles import IMPATIENT, PATIENT, Road, Trouble

JOIN_DELAY = timedelta(seconds=20)
COURSES_PER_CLOUD = 300  # after which its log of requests is worth throwing away


class Rig:
    """Runs courses. For a process without other threads: it forks, and counts the cloud's."""

    def __init__(self, folder: Path) -> None:
        """``folder``: for the ledger's file; its owner removes it."""
        self._clock = SharedClock()
        self._clock.set(NOON)
        self._file = folder / "ledger.db"
        self._ledger: SqlLedger = open_ledger(f"sqlite:///{self._file}", clock=self._clock)
        self._ledger.close()
        self._empty = self._file.read_bytes()
        self._courses = 0
        self._network = Network()
        # It takes purchases' connections and never answers; the other is closed, so that nobody listens there.
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._deaf = socket.socket()
        self._deaf.bind(("127.0.0.1", 0))
        self._begin_cloud()
        # Once in this process: what it compiles for the ledger's statements, every child inherits.
        warmed_up = self.run(Plan(Trouble("warm up")), fork=False)
        if warmed_up.problems:
            raise RuntimeError("\n".join(warmed_up.problems))
        self._ledger.close()

    def close(self) -> None:
        """End the cloud."""
        self._cloud.close()
        self._silent.close()
        self._deaf.close()

    def run(self, plan: Plan, *, fork: bool = True) -> Outcome:
        """The course that a plan describes, judged."""
        self._courses += 1
        if self._courses % COURSES_PER_CLOUD == 0:
            self._cloud.close()
            self._begin_cloud()
        self._reset_ledger()
        course = Course(
            plan=plan,
            cluster_id=f"C{self._courses:032d}",
            cloud=self._cloud,
            clock=self._clock,
            client=self._clients[plan.trouble.timeout],
            network=self._network,
            ledger=self._ledger,
            file=self._file,
            roads={
                Road.STRAIGHT: None,
                Road.REFUSED: self._deaf.getsockname()[1],
                Road.SILENT: self._silent.getsockname()[1],
            },
            idle_threads=threading.active_count() if fork else 1_000,
        )
        try:
            return course.run(fork=fork)
        finally:
            self._hang_up()

    def _begin_cloud(self) -> None:
        self._cloud = cloud = SandboxCloud(clock=self._clock, join_delay=JOIN_DELAY)
        cloud.start()
        key, secret = next(iter(TEST_CREDENTIALS.items()))
        credential = Credential(key, SecretStr(secret))
        # Made here and not by each child, because making one takes 25 ms; they are as good as new in every child.
        self._clients = {
            timeout: Cloud(cloud.url, lambda: credential, timeout=timeout, clock=self._clock, transport=self._network)
            for timeout in (PATIENT, IMPATIENT)
        }
        gc.unfreeze()  # the cloud before this one is rubbish now, and every fork copies what maps it
        gc.collect()
        gc.freeze()  # a child's collector need not copy what it was born with

    def _reset_ledger(self) -> None:
        for suffix in ("-wal", "-shm"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)
        self._file.write_bytes(self._empty)

    def _hang_up(self) -> None:
        self._silent.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                self._silent.accept()[0].close()
