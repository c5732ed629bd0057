"""The course of a simulation: a cluster, a ledger in lists and the road to money, all at one virtual instant.

What the daemon's threads and timers do is done here in a fixed order at each tick: the cloud is looked at, open
purchases are settled, the policy is decided, and what it asks for is reserved, sent and recorded.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from functools import partial

from autoscaler.controller import capacity_of
from autoscaler.decision import Evaluation, decide
from autoscaler.facts import Facts
from autoscaler.ledger import MemoryLedger
from autoscaler.model import Capacity, Gap, History, Outcome, Override, Purchase, Reading, Run, Task, TaskState
from autoscaler.policy import Policy
from autoscaler.purchase import answered
from autoscaler.purchasing import intended
from autoscaler.settling import Settling
from autoscaler.simulation.cloud import SimulatedCloud
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import Market
from autoscaler.simulation.readings import Conditions, Readings
from autoscaler.strategy import Fleet

_HOLDER = "simulation"
_ENDPOINT = "https://simulated.invalid"


class Course:
    """Everything that a simulation moves through time."""

    def __init__(self, policy: Policy, load: Load, market: Market, ready: int, overrides: Sequence[Override]) -> None:
        self.policy = policy
        self.load = load
        self.cloud = SimulatedCloud(policy, load, market, ready)
        self.readings = Readings(policy, load)
        self.now = load.start_at
        self.ledger = MemoryLedger(clock=lambda: self.now)
        self.ledger.lease(_HOLDER, [policy.cluster_id], load.end_at - load.start_at + timedelta(days=1))
        self._settling = Settling(
            ledger=self.ledger, cloud=self.cloud, observer=_Nobody(), clock=lambda: self.now, tell=_tell_nobody
        )
        self.overrides = tuple(
            replace(order, id=number, ends_at=min(order.ends_at, order.ended_at or order.ends_at), ended_at=None)
            for number, order in enumerate(sorted(overrides, key=lambda order: order.starts_at), 1)
        )
        self._to_come = deque(self.overrides)

    def turn_to(self, tick: int) -> None:
        """Let time pass until a tick, and look at the cloud as it then stands."""
        self.now = self.load.at(tick)
        self.cloud.turn_to(tick)
        look = self.cloud.inventory(self.policy.cluster_id)
        if not isinstance(look, Gap):
            self.ledger.record_look(look)
        while self._to_come and self._to_come[0].starts_at <= self.now:
            self._record(self._to_come.popleft())

    def _record(self, order: Override) -> None:
        # Given now and not before: an order holds from its record on.
        self.ledger.add_override(
            order.kind, order.policies, order.workers, order.author, order.reason, order.starts_at, order.ends_at
        )

    def settle(self) -> bool:
        """Move open purchases on by what the cloud shows now; whether any was."""
        look = self.cloud.inventory(self.policy.cluster_id)
        unsettled = self.ledger.unsettled()
        if not unsettled or isinstance(look, Gap):
            return False
        self._settling.settle(self.policy.cluster_id, unsettled, self.now)
        return self.ledger.unsettled() != unsettled

    def facts(self) -> Facts:
        """What is known now, but for the readings."""
        policy = self.policy
        history = self.ledger.histories([policy], self.now)[policy.name]
        return Facts(
            policy=policy,
            now=self.now,
            readings=(),
            capacity=self._capacity(history),
            history=history,
            overrides=tuple(order for order in self.ledger.overrides(self.now) if order.names(policy.name)),
            endpoint=_ENDPOINT,
            credential=_HOLDER,
        )

    def _capacity(self, history: History) -> Capacity | Gap:
        policy, look = self.policy, self.cloud.inventory(self.policy.cluster_id)
        if isinstance(look, Gap):
            return look
        counted = None
        if policy.capacity.query is not None:
            reason = self.cloud.unread().get(None)
            if reason is not None:
                return Gap(reason, "a fault of the simulation")
            counted = Reading(Fraction(self.cloud.serving()), self.now)
        own: frozenset[str] = self.ledger.own_tasks(policy.cluster_id) if _any_runs(look.tasks) else frozenset()
        workers = self.ledger.workers(policy.cluster_id)
        return capacity_of(policy, look, workers, history, own, counted, alone=True)

    def conditions(self, fleet: Fleet | Gap) -> Conditions:
        """What the readings depend on now besides the load."""
        return Conditions(self.cloud.serving(), fleet, tuple(self.cloud.unread().items()))

    def buy(self, facts: Facts, runs: tuple[Run, ...] | None = None) -> Evaluation:
        """Decide once more under the ledger's lock, and reserve, send and record what that asks for.

        ``runs`` take the place of those the ledger has.
        """

        def propose(history: History, overrides: tuple[Override, ...]) -> tuple[Evaluation, Purchase | None]:
            named = tuple(order for order in overrides if order.names(facts.policy.name))
            known = history if runs is None else replace(history, runs=runs)
            fresh = replace(facts, history=known, overrides=named)
            evaluation = Evaluation(fresh, decide(fresh))
            if evaluation.decision.outcome is not Outcome.SCALE_OUT:
                return evaluation, None
            return evaluation, intended(evaluation, f"{_HOLDER}-{facts.now.timestamp():.6f}", facts.now)

        evaluation, purchase = self.ledger.reserve(facts.policy, self.now, _HOLDER, propose)
        if purchase is not None and self.ledger.begin_sending(purchase, _HOLDER, self.now) is None:
            answer = self.cloud.scale_out(purchase)
            self._settling.apply(purchase.id, partial(answered, answer=answer, now=self.now), "answered")
        return evaluation


class _Nobody:
    """Counts no purchases."""

    def purchases_changed(self, purchases: object) -> None:
        """Not counted."""


def _tell_nobody(purchase: Purchase, what: str) -> None:
    """A simulated purchase is nobody's concern: it is in the result."""


def _any_runs(tasks: Sequence[Task]) -> bool:
    return any(task.state is TaskState.RUNNING for task in tasks)
