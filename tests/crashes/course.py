"""A course: load needs three more workers, replicas buy them from a sandbox cloud, and some of them die on the way.

The judge's side of it. It holds the cloud and the clock, forks the replicas, hears of every one of their deaths, plays
the colleague and the person on call, and looks at the end at what the cloud sold.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from autoscaler.cloud import Cloud
from autoscaler.ledger import SqlLedger
from autoscaler.sandbox import Order, SandboxCloud
from tests import build
from tests.crashes.effects import DIED, Effects, Network, Point
from tests.crashes.judge import Evidence, Verdict, judge, purchases_of
from tests.crashes.replica import WORKERS_AT_FIRST, Post, SharedClock, work
from tests.crashes.sabotage import SABOTAGES
from tests.crashes.troubles import Call, Road, Trouble

# Not on a whole second: the cloud's times are, and are rounded down.
NOON = datetime(2026, 6, 1, 12, 0, 0, 400_000, tzinfo=UTC)
ROUND_TRIP = timedelta(seconds=2)  # from the claim of a purchase to the cloud
RESTART = timedelta(seconds=1)
FAR_FUTURE = timedelta(hours=3)
HUNG_SECONDS = 60
MOST_RESTARTS = 4


class Successor(StrEnum):
    """Who goes on after the first replica's crash point."""

    SAME = "the same daemon, restarted"
    OTHER = "another replica"
    WOKEN_SOON = "another replica; the first stood still and wakes after 3 min"
    WOKEN_LATE = "another replica; the first stood still and wakes when all is calm"

    @property
    def stands_still(self) -> bool:
        """Whether the first replica does not die at its point but stops there."""
        return self in (Successor.WOKEN_SOON, Successor.WOKEN_LATE)


@dataclass(frozen=True, slots=True)
class Plan:
    """One combination.

    ``crashes``: the effect before which each replica dies, by its number, counted anew by each of them, or by its name.
    """

    trouble: Trouble
    successor: Successor = Successor.SAME
    crashes: tuple[int | Point, ...] = ()
    sabotage: str = "none"

    def __str__(self) -> str:
        points = " and ".join(str(point) for point in self.crashes) or "none"
        return f"{self.trouble.name} | {self.successor.value} | point {points} | sabotage {self.sabotage}"


@dataclass(slots=True)
class Outcome:
    """What came of a plan."""

    plan: Plan
    points: list[Point] = field(default_factory=list)  # where replicas died, or stood still
    effects: list[int] = field(default_factory=list)  # made by each replica that lived to the end
    verdict: Verdict = field(default_factory=Verdict)

    @property
    def problems(self) -> list[str]:
        """What is wrong, each with the plan that shows it."""
        where = ", then ".join(str(point) for point in self.points)
        return [f"{self.plan} ({where}): {problem}" for problem in self.verdict.problems]


@dataclass(slots=True)
class _Child:
    """A replica under way, and what it is in the world's eyes."""

    link: Connection
    pid: int = 0  # 0: a thread of this process
    asleep_until: datetime | None = None
    connected: bool = False  # it stands still with a connection in its hand

    def end(self) -> None:
        self.link.close()
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


class Course:
    """One course, from the first replica to the verdict."""

    def __init__(
        self,
        *,
        plan: Plan,
        cluster_id: str,
        cloud: SandboxCloud,
        clock: SharedClock,
        client: Cloud,
        network: Network,
        ledger: SqlLedger,
        file: Path,
        roads: dict[Road, int | None],
        idle_threads: int,
    ) -> None:
        self._plan = plan
        self._cluster_id = cluster_id
        self._cloud = cloud
        self._clock = clock
        self._client = client
        self._network = network
        self._ledger = ledger
        self._file = file
        self._roads = roads
        self._idle_threads = idle_threads
        self._outcome = Outcome(plan)
        self._evidence = Evidence()
        self._sleeper: _Child | None = None
        self._posts = 0
        self._colleague_due = False
        self._policy = build.policy(
            cluster_id=cluster_id,
            maximum=20,
            per_action=2,
            timeout_mins=10,
            cooldown=timedelta(seconds=30),
            warm_up=timedelta(0),
            provision_timeout=timedelta(minutes=25),
            **plan.trouble.policy,
        )

    def run(self, *, fork: bool) -> Outcome:
        plan, cloud = self._plan, self._cloud
        self._clock.set(NOON)
        cloud.heal()
        cloud.add_cluster(self._cluster_id, workers=WORKERS_AT_FIRST)
        plan.trouble.arrange(cloud, self._cluster_id)
        for number in range(MOST_RESTARTS):
            first = number == 0
            last = plan.crashes[number] if number < len(plan.crashes) else 0
            holder = "replica-1" if first or plan.successor is Successor.SAME else f"replica-{number + 1}"
            child = self._start(holder, last, stands_still=first and plan.successor.stands_still, fork=fork)
            if self._follow(child):
                break
            self._pass(RESTART)
        else:
            self._wrong("the replicas did not come to an end")
        if self._sleeper is not None:
            self._sleeper.end()
        self._quiet()
        self._clock.set(self._clock() + FAR_FUTURE)
        self._outcome.verdict = judge(
            plan.trouble,
            self._evidence,
            rows=purchases_of(self._file),
            orders=self._orders(),
            posts=[
                request.nonce
                for request in cloud.requests
                if request.method == "POST" and request.path.endswith(self._cluster_id)
            ],
            ready=cloud.ready_workers(self._cluster_id),
            disturbed=bool(self._outcome.points),
        )
        return self._outcome

    def _start(self, holder: str, last: int | Point, *, stands_still: bool, fork: bool) -> _Child:
        self._quiet()  # no thread of ours is at work, so that none is lost in the middle by forking
        ours, theirs = Pipe()
        post = Post(
            holder=holder,
            policy=self._policy,
            cloud=self._client,
            network=self._network,
            clock=self._clock,
            ledger=self._ledger,
        )
        effects = Effects(theirs, last=last, stands_still=stands_still)
        sabotage = SABOTAGES[self._plan.sabotage]
        if not fork:
            threading.Thread(target=work, args=(post, theirs, effects, sabotage), daemon=True).start()
            return _Child(ours)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ours.close()
                work(post, theirs, effects, sabotage)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        return _Child(ours, pid)

    def _follow(self, child: _Child) -> bool:
        """Be the world of a replica until it ends, dies or stands still; whether the course is at its end."""
        answers: dict[str, Callable[..., Any]] = {
            "posting": self._posting,
            "advance": self._advance,
            "unknown": self._unknown,
            "refused": lambda: self._evidence.calls.append(Call.REFUSED),
            "calm": self._calm,
        }
        while True:
            if not child.link.poll(HUNG_SECONDS):
                self._wrong("a replica hung")
                child.end()
                return True
            try:
                what, *told = child.link.recv()
            except EOFError:
                self._wrong("a replica died that was not to")
                child.end()
                return True
            if what in answers:
                child.link.send(answers[what](*told))
            elif what == "wrong":
                self._wrong(*told)
            elif what == "restless":
                self._wrong(f"did not come to rest: {told[0]}")
            elif what == "died":
                self._outcome.points.append(told[0])
                self._bury(child)
                return False
            elif what == "stands":
                self._outcome.points.append(told[0])
                late = self._plan.successor is Successor.WOKEN_LATE
                child.asleep_until = None if late else self._clock() + timedelta(minutes=3)
                child.connected = told[0].what != "committed"
                self._sleeper = child
                return False
            elif what == "done":
                self._outcome.effects.append(told[0])
                child.end()
                return True

    def _bury(self, child: _Child) -> None:
        child.link.close()
        _, status = os.waitpid(child.pid, 0)
        if os.waitstatus_to_exitcode(status) != DIED:
            self._wrong(f"a replica died of status {status}")

    def _wake(self) -> None:
        sleeper, self._sleeper = self._sleeper, None
        if sleeper is not None:
            sleeper.link.send("wake")
            self._follow(sleeper)

    def _posting(self) -> int | None:
        """A purchase is about to be sent; the port it goes to, if not the cloud's."""
        self._posts += 1
        trouble = self._plan.trouble
        self._clock.set(self._clock() + ROUND_TRIP)
        if self._posts > 1:
            return None
        if trouble.colleague is not None:
            self._colleague_due = True
            if trouble.colleague.when == "before":
                self._colleague_buys()
        return self._roads[trouble.road]

    def _colleague_buys(self) -> None:
        colleague = self._plan.trouble.colleague
        if self._colleague_due and colleague is not None:
            self._colleague_due = False
            self._cloud.buy_by_console(self._cluster_id, colleague.workers, with_task=colleague.with_task)
            self._evidence.colleagues += colleague.workers

    def _advance(self, by: timedelta) -> None:
        until = self._clock() + by
        wake_at = None if self._sleeper is None else self._sleeper.asleep_until
        if wake_at is not None and wake_at <= until:
            self._pass(wake_at - self._clock())
            self._wake()
        self._pass(max(until - self._clock(), timedelta(0)))

    def _pass(self, by: timedelta) -> None:
        """Let time pass, once the cloud has ended what it was about."""
        self._quiet()
        self._colleague_buys()
        self._clock.set(self._clock() + by)

    def _unknown(self, nonce: str) -> int:
        """A person looks into the console: how many workers were sold by a purchase."""
        ours = [order for order in self._orders() if order.origin == "api"]
        ids = {row.nonce: row.id for row in purchases_of(self._file)}
        if any(ids.get(order.nonce or "", 0) > ids[nonce] for order in ours):
            self._wrong("workers were bought while a purchase was unknown")
        sold = sum(order.count for order in ours if order.nonce == nonce)
        self._evidence.calls.append(Call.UNKNOWN)
        self._evidence.unknown[nonce] = sold
        return sold

    def _orders(self) -> list[Order]:
        return [order for order in self._cloud.orders if order.cluster_id == self._cluster_id]

    def _calm(self) -> bool:
        """Nothing is left to do; unless one wakes now that stood still."""
        if self._sleeper is None:
            return True
        self._wake()
        return False

    def _quiet(self) -> None:
        """Wait until the cloud has no request in hand, but for one that stands still."""
        give_up_at = time.monotonic() + HUNG_SECONDS
        kept = self._sleeper is not None and self._sleeper.connected
        while threading.active_count() > self._idle_threads + kept and time.monotonic() < give_up_at:
            time.sleep(0.0005)

    def _wrong(self, problem: str) -> None:
        self._evidence.problems.append(problem)
