"""One replica: the real parts of a daemon, put to work step by step in virtual time until there is nothing left to do.

It runs in a child process that shares nothing with its starter but the clock, the cloud's port and the ledger's file.
The daemon's jobs run one after the other here, so that the effects of a course come in the same order each time.
"""

import mmap
import struct
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import structlog
from pydantic import SecretStr

from autoscaler import purchasing
from autoscaler.cloud import Cloud
from autoscaler.controller import Controller
from autoscaler.decision import Decision, Evaluation
from autoscaler.facts import Reason
from autoscaler.leases import Leases
from autoscaler.ledger import SqlLedger
from autoscaler.model import Gap, Purchase, PurchaseState, Question, Reading
from autoscaler.policy import Policy
from autoscaler.purchase import OPEN, TooEarly, quiet_at, settled_bought, settled_not_bought
from autoscaler.purchasing import Purchasing
from tests.crashes.effects import Effects, Network, watch_ledger

STEP = timedelta(seconds=30)  # a look is kept for as long: each step sees the cloud anew
LONG_STEP = timedelta(minutes=5)
CALM_FOR = timedelta(minutes=10)
MOST_STEPS = 80
PATIENCE = 30.0  # seconds of real time for a request to end

# What the replica is for: load that four workers carry.
WORKERS_AT_FIRST = 1
WANTED = 4
PER_WORKER = 400

# One that stands still while it settles stands still as a whole: its other jobs must not go on after a while.
purchasing.SETTLE_PATIENCE_SECONDS = 1_000.0

_REFUSED = frozenset({Reason.REFUSED_POLICY, Reason.REFUSED_ACCOUNT, Reason.REFUSED_GONE})


class SharedClock:
    """Virtual time in memory that processes forked from this one share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8)

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(struct.unpack("d", self._memory[:8])[0], UTC)

    def set(self, at: datetime) -> None:
        self._memory[:8] = struct.pack("d", at.timestamp())


@dataclass(frozen=True, slots=True)
class Post:
    """What a replica works with."""

    holder: str
    policy: Policy
    cloud: Cloud
    network: Network
    clock: SharedClock
    ledger: SqlLedger


class Load:
    """A Prometheus whose load never changes."""

    def read(self, questions: Sequence[Question], at: datetime) -> list[Reading | Gap]:
        return [Reading(Fraction(WANTED * PER_WORKER), at) for _ in questions]


class Nobody:
    """An observer who counts nothing."""

    def purchases_changed(self, purchases: object) -> None: ...

    def evaluated(self, evaluation: Evaluation, seconds: float) -> None: ...


class Replica:
    """A daemon's parts over a watched ledger and network; ``link`` leads to whoever plays the rest of the world."""

    def __init__(self, post: Post, effects: Effects, link: Connection, sabotage: Callable[..., dict[str, Any]]) -> None:
        self._post = post
        self._effects = effects
        self._link = link
        self._clock = post.clock
        post.network.watch(effects, self._road)
        self._leases = Leases(post.ledger, post.holder, timer=lambda: post.clock().timestamp())
        parts: dict[str, Any] = {
            "ledger": post.ledger,
            "cloud": post.cloud,
            "seller": lambda purchase: post.cloud,
            "password": lambda policy: SecretStr("L0gin-of-a-worker!"),
            "observer": Nobody(),
            "clock": post.clock,
            "holder": post.holder,
            "held": self._leases.held,
        }
        parts |= sabotage(parts)
        self._ledger: SqlLedger = parts["ledger"]
        self._purchasing = Purchasing(**parts)
        self._controller = Controller(
            readers={"default": Load()},
            cloud=post.cloud,
            ledger=self._ledger,
            purchasing=self._purchasing,
            observer=Nobody(),
        )
        self._controller.know([post.policy], {"default": Load()})
        self._too_early: set[int] = set()

    def run(self) -> None:
        """Work until calm, or until woken after a standstill: then only what was begun is brought to its end."""
        idle, before = 0, None
        for _ in range(MOST_STEPS):
            decision = self._step()
            if self._effects.woken:
                return
            purchases = self._ledger.purchases(limit=None)
            idle, before = (idle + 1, before) if purchases == before else (0, purchases)
            unknown = [purchase for purchase in purchases if purchase.state is PurchaseState.UNKNOWN]
            if unknown and idle >= 2:
                self._call_person(unknown[0])
            elif decision is not None and decision.reason in _REFUSED and idle >= 2:
                self._allow_retry(next(purchase for purchase in purchases if purchase.refusal is not None))
            elif decision is not None and decision.reason is Reason.ENOUGH and not _open(purchases):
                self._advance(CALM_FOR)
                self._step()
                if self._ledger.purchases(limit=None) == purchases and self._ask("calm"):
                    return
            else:
                self._advance(STEP if idle < 3 else LONG_STEP)
        self._link.send(("restless", [f"{p.id} {p.state} {p.asked}" for p in self._ledger.purchases(limit=None)]))

    def close(self) -> None:
        """End its threads."""
        self._purchasing.close()
        self._controller.close()

    def _step(self) -> Decision | None:
        """One round of the daemon's jobs; None: another replica has the cluster."""
        effects, policy = self._effects, self._post.policy
        effects.posted = False
        effects.phase = "lease"
        self._leases.renew([policy.cluster_id])
        effects.phase = "settle"
        self._purchasing.settle_all(self._clock())
        effects.phase = "evaluate"
        evaluations = []
        if policy.cluster_id in self._leases.held():
            evaluations = self._controller.evaluate([policy], self._clock())
        give_up_at = time.monotonic() + PATIENCE
        while self._purchasing.sending():
            if time.monotonic() > give_up_at:
                raise TimeoutError("a purchase is in hand for ever")
            time.sleep(0.0005)
        return evaluations[0].decision if evaluations else None

    def _call_person(self, purchase: Purchase) -> None:
        """A person who looks into the cloud's console settles it, as soon as that is allowed."""
        self._effects.phase = "person"
        if self._clock() < quiet_at(purchase):
            if purchase.id not in self._too_early:
                self._too_early.add(purchase.id)
                self._try_too_early(purchase)
            self._advance(quiet_at(purchase) - self._clock() + timedelta(seconds=1))
            return  # what a look shows by then counts before a person's word
        sold = self._ask("unknown", purchase.nonce)
        now = self._clock()
        if sold:
            says: Callable[[Purchase], Purchase] = partial(settled_bought, bought=sold, now=now)
        else:
            says = partial(settled_not_bought, now=now)
        self._ledger.change(purchase.id, says, now, "settled by a person", "ana")

    def _try_too_early(self, purchase: Purchase) -> None:
        now = self._clock()
        try:
            self._ledger.change(purchase.id, partial(settled_not_bought, now=now), now, "settled too early", "ana")
        except TooEarly:
            return
        self._link.send(("wrong", f"purchase {purchase.id} was settled as not bought too early"))

    def _allow_retry(self, purchase: Purchase) -> None:
        self._effects.phase = "person"
        self._ask("refused")
        now = self._clock()
        self._ledger.change(purchase.id, lambda row: replace(row, retried_at=now), now, "retried", "ana")

    def _road(self) -> int | None:
        port: int | None = self._ask("posting")
        return port

    def _advance(self, by: timedelta) -> None:
        self._ask("advance", by)

    def _ask(self, *question: object) -> Any:
        self._link.send(question)
        return self._link.recv()


def work(post: Post, link: Connection, effects: Effects, sabotage: Callable[..., dict[str, Any]]) -> None:
    """Be a replica to the end of the course; ``link`` hears ``("done", effects made)``, and of what went wrong."""
    structlog.configure(
        processors=[partial(_report_errors, link)], wrapper_class=structlog.make_filtering_bound_logger(40)
    )
    end = watch_ledger(effects)
    try:
        replica = Replica(post, effects, link, sabotage)
        replica.run()
        replica.close()
    except Exception:
        link.send(("wrong", f"the replica failed: {traceback.format_exc()}"))
    end()
    link.send(("done", effects.count))


def _report_errors(link: Connection, _: object, __: str, event: Any) -> Any:
    """Tell of exceptions that the product caught; that a purchase failed or is unknown is what courses are about."""
    if event.get("exc_info"):
        error = structlog.processors.format_exc_info(None, "", event).get("exception", "")
        link.send(("wrong", f"{event['event']}: {error}"))
    raise structlog.DropEvent


def _open(purchases: Sequence[Purchase]) -> list[Purchase]:
    return [purchase for purchase in purchases if purchase.state in OPEN]
