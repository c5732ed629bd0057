"""The controller: gathers what is known of a list of policies, decides each, and reserves or records the result.

It knows no outside system, only the small Protocols below; dry run and simulation swap what stands behind them.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Protocol

import structlog

from autoscaler.decision import Decision, Evaluation, decide
from autoscaler.facts import Facts
from autoscaler.model import (
    Capacity,
    CheckReading,
    Gap,
    GapReason,
    History,
    Inventory,
    Outcome,
    Override,
    Question,
    Reading,
    TaskState,
    Worker,
)
from autoscaler.policy import Policy, Schedule
from autoscaler.purchase import OPEN
from autoscaler.restoral import strangers
from autoscaler.threads import Threads

log = structlog.get_logger(__name__)

# capacity.query has no max_age of its own: a count of workers older than the default of checks is not trusted.
CAPACITY_MAX_AGE = timedelta(minutes=2)
# Clusters that answer within this time of each other are recorded in one transaction.
TOGETHER_SECONDS = 0.1
# A look that takes longer is a gap of its own policies; those evaluated with them must not miss their next turn.
LOOK_PATIENCE_SECONDS = 10.0


class Reader(Protocol):
    """A Prometheus: one reading or gap for each question, in their order."""

    def read(self, questions: Sequence[Question], at: datetime) -> list[Reading | Gap]: ...


class Cloud(Protocol):
    """The cloud's side of a cluster, seen whole or not at all."""

    endpoint: str

    def fingerprint(self) -> str: ...

    def inventory(self, cluster_id: str) -> Inventory | Gap: ...


class Ledger(Protocol):
    """What decisions are computed from, and recorded in."""

    def histories(self, policies: Sequence[Policy], now: datetime) -> Mapping[str, History]: ...

    def overrides(self, now: datetime) -> tuple[Override, ...]: ...

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]: ...

    def own_tasks(self, cluster_id: str) -> frozenset[str]: ...

    def record(self, evaluations: Sequence[Evaluation]) -> tuple[bool, ...]: ...


class Purchasing(Protocol):
    """The one road to money."""

    def buy(self, evaluation: Evaluation) -> tuple[Evaluation, bool]: ...


class Observer(Protocol):
    """Whoever counts evaluations."""

    def evaluated(self, evaluation: Evaluation, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class _Look:
    """One whole look at a cluster, and what the ledger knows of it."""

    inventory: Inventory
    workers: tuple[Worker, ...]
    own_tasks: frozenset[str]


class Controller:
    """Evaluates policies, each against what its Prometheus, its cloud and the ledger say."""

    def __init__(
        self,
        *,
        readers: Mapping[str, Reader],
        cloud: Cloud,
        ledger: Ledger,
        purchasing: Purchasing,
        observer: Observer,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._readers = readers
        self._cloud = cloud
        self._ledger = ledger
        self._purchasing = purchasing
        self._observer = observer
        self._timer = timer
        self._shared: frozenset[tuple[str, str]] = frozenset()
        self._in_force: Mapping[str, Policy] = {}
        self._looking: dict[str, Future[_Look | Gap]] = {}
        self._looking_lock = threading.Lock()
        self._threads = Threads("gather")
        self._closed = threading.Event()

    def know(self, policies: Sequence[Policy], readers: Mapping[str, Reader]) -> None:
        """Take notice of all policies there are, and of the Prometheus servers they name."""
        kinds = Counter((policy.cluster_id, policy.worker.worker_instance_type) for policy in policies)
        self._shared = frozenset(kind for kind, n in kinds.items() if n > 1)
        self._readers = readers
        self._in_force = {policy.name: policy for policy in policies}

    def evaluate(self, policies: Sequence[Policy], now: datetime) -> list[Evaluation]:
        """Evaluate ``policies`` at ``now``: decide each, reserve what is to be bought, record the rest.

        A policy that fails is logged and left out; the others go on. Raises what the ledger raises, after the others
        are done where it fails for one cluster's look: without the ledger nothing may be decided.
        """
        begun = self._timer()
        evaluations: list[Evaluation] = []
        for known in self._gather(policies, now):
            made = self._decide(known)
            seconds = self._timer() - begun
            for evaluation in made:
                self._observer.evaluated(evaluation, seconds)
            evaluations += made
        return evaluations

    def explain(self, policy: Policy, now: datetime) -> Evaluation:
        """Evaluate one policy now; buy nothing and record no decision."""
        for known in self._gather([policy], now):
            return Evaluation(known[0], decide(known[0]))
        raise AssertionError("gathering one policy gives one set of facts")

    def close(self) -> None:
        """Decide nothing more; an evaluation under way ends without a word on what it leaves out."""
        self._closed.set()

    def _decide(self, known: Sequence[Facts]) -> list[Evaluation]:
        """Decide on each set of facts; buy at once where something is to be bought, then record the rest together."""
        made: list[Evaluation] = []
        quiet: list[Evaluation] = []
        for facts in known:
            if self._closed.is_set():
                break
            try:
                evaluation = Evaluation(facts, decide(facts))
                if evaluation.decision.outcome is Outcome.SCALE_OUT:
                    if self._in_force.get(facts.policy.name) != facts.policy:
                        continue  # it was changed or removed while its cluster was looked at
                    evaluation, news = self._purchasing.buy(evaluation)
                    _tell(evaluation.decision, news)
                else:
                    quiet.append(evaluation)
            except Exception:
                if self._closed.is_set():
                    break
                log.exception("evaluation.failed", policy=facts.policy.name)
                continue
            made.append(evaluation)
        for evaluation, news in zip(quiet, self._ledger.record(quiet), strict=True):
            _tell(evaluation.decision, news)
        return made

    def _gather(self, policies: Sequence[Policy], now: datetime) -> Iterator[list[Facts]]:
        """The facts of the policies whose clusters have answered, as they answer: a slow one holds up no other."""
        looks = {
            self._begin_look(cluster_id): [p for p in policies if p.cluster_id == cluster_id]
            for cluster_id in dict.fromkeys(policy.cluster_id for policy in policies)
        }
        ends = self._timer() + LOOK_PATIENCE_SECONDS
        answers = self._read(policies, now)
        histories = self._ledger.histories(policies, now)
        overrides = self._ledger.overrides(now)
        fingerprint = self._fingerprint()

        def facts(policy: Policy, look: _Look | Gap) -> Facts:
            readings, counted = answers[policy.name]
            return Facts(
                policy=policy,
                now=now,
                readings=readings,
                capacity=self._capacity(policy, look, histories[policy.name], counted),
                history=histories[policy.name],
                overrides=tuple(order for order in overrides if order.names(policy.name)),
                endpoint=self._cloud.endpoint,
                credential=fingerprint,
            )

        failure: BaseException | None = None
        waiting = set(looks)
        while waiting:
            first = wait(waiting, timeout=max(0.0, ends - self._timer()), return_when=FIRST_COMPLETED)
            if not first.done:
                break
            done, waiting = wait(waiting, timeout=TOGETHER_SECONDS)
            answered = [look for look in looks if look in done and not look.exception()]
            failure = failure or next(filter(None, (look.exception() for look in done)), None)
            known = [facts(policy, look.result()) for look in answered for policy in looks[look]]
            if known:
                yield known
        if waiting:
            hung = Gap(GapReason.TIMEOUT, f"the cloud has not answered within {LOOK_PATIENCE_SECONDS:g} s")
            yield [facts(policy, hung) for look in looks if look in waiting for policy in looks[look]]
        if failure is not None:
            raise failure

    def _begin_look(self, cluster_id: str) -> "Future[_Look | Gap]":
        """Look at a cluster, or go on waiting for a look that has not come back: one that hangs holds one thread."""
        with self._looking_lock:
            look = self._looking.get(cluster_id)
            if look is None or look.done():
                look = self._looking[cluster_id] = self._threads.submit(self._look, cluster_id)
            return look

    def _fingerprint(self) -> str:
        try:
            return self._cloud.fingerprint()
        except Exception as error:  # whatever keeps the credential from being read; the look says so as a gap
            log.warning("credential.unavailable", error=str(error))
            return ""

    def _look(self, cluster_id: str) -> _Look | Gap:
        inventory = self._cloud.inventory(cluster_id)
        if isinstance(inventory, Gap):
            return inventory
        own = self._ledger.own_tasks(cluster_id) if inventory.tasks else frozenset()
        return _Look(inventory, self._ledger.record_look(inventory), own)

    def _capacity(
        self, policy: Policy, look: _Look | Gap, history: History, counted: Reading | Gap | None
    ) -> Capacity | Gap:
        if isinstance(look, Gap):
            return look
        if isinstance(counted, Gap) and counted.reason is GapReason.NO_DATA and _nobody_there(policy, look, history):
            counted = Reading(Fraction(0), None)
        if isinstance(counted, Gap):
            return counted
        if counted is not None and (counted.value < 0 or counted.value.denominator != 1):
            text = f"capacity.query answers {float(counted.value):g}, not a number of workers"
            return Gap(GapReason.NOT_A_COUNT, text)
        alone = self._alone(policy)
        return capacity_of(policy, look.inventory, look.workers, history, look.own_tasks, counted, alone=alone)

    def _alone(self, policy: Policy) -> bool:
        return (policy.cluster_id, policy.worker.worker_instance_type) not in self._shared

    def _read(
        self, policies: Sequence[Policy], now: datetime
    ) -> dict[str, tuple[tuple[CheckReading, ...], Reading | Gap | None]]:
        """Each policy's readings and what its capacity query says, every server asked once and all at the same time."""
        asked: dict[str, dict[Question, None]] = {}
        for policy in policies:
            asked.setdefault(policy.prometheus, {}).update(dict.fromkeys(questions(policy)))
        waiting: dict[str, Future[list[Reading | Gap]]] = {
            server: self._threads.submit(self._readers[server].read, list(wanted), now)
            for server, wanted in asked.items()
            if wanted and server in self._readers
        }
        answers: dict[str, dict[Question, Reading | Gap]] = {}
        for server, future in waiting.items():
            try:
                answers[server] = dict(zip(asked[server], future.result(), strict=True))
            except Exception as error:  # a reload may have closed the client meanwhile; other servers' policies go on
                log.exception("readings.failed", server=server)
                gap = Gap(GapReason.SERVER_ERROR, f"Prometheus {server} could not be asked: {type(error).__name__}")
                answers[server] = dict.fromkeys(asked[server], gap)
        return {policy.name: _readings(policy, answers.get(policy.prometheus, {})) for policy in policies}


def questions(policy: Policy) -> Iterator[Question]:
    """What one evaluation of a policy asks its Prometheus."""
    for check in policy.checks:
        if isinstance(check, Schedule):
            continue
        yield Question(check.query, check.max_age)
        over = getattr(check, "over", None)
        if over is not None:
            yield Question(over, check.max_age)
    if policy.capacity.query is not None:
        yield Question(policy.capacity.query, CAPACITY_MAX_AGE)


def capacity_of(
    policy: Policy,
    inventory: Inventory,
    workers: Sequence[Worker],
    history: History,
    own_tasks: frozenset[str],
    counted: Reading | None,
    *,
    alone: bool,
) -> Capacity:
    """What one look at a cluster means for a policy: its own workers, and who else is scaling the cluster out."""
    bought = {purchase.id for purchase in history.purchases if purchase.policy == policy.name}
    kind = policy.worker.worker_instance_type
    return Capacity(
        at=inventory.at,
        cluster=inventory.cluster,
        workers=tuple(
            worker for worker in workers if worker.purchase_id in bought or (alone and worker.instance_type == kind)
        ),
        tasks=tuple(task.task_id for task in inventory.tasks),
        foreign_tasks=tuple(
            task.task_id
            for task in inventory.tasks
            if task.state is TaskState.RUNNING
            and task.task_id not in own_tasks
            # One that was paused, or that the cloud forgot, brings nothing more; who made it gave it no longer than we.
            and (task.created_at is None or inventory.at < task.created_at + policy.provision_timeout)
        ),
        counted=counted,
        alone=alone,
        strangers=strangers(policy, history.restoral, inventory.at, inventory.tasks, own_tasks, workers),
    )


def _nobody_there(policy: Policy, look: _Look, history: History) -> bool:
    """Whether no worker can be what a capacity.query without any sample leaves out: a new cluster has no exporters.

    None of the type is known to any look of the last hour, and none that was bought is on its way or still there.
    """
    kind = policy.worker.worker_instance_type
    return not any(worker.instance_type == kind for worker in look.workers) and not any(
        purchase.state in OPEN or any(arrival.gone_at is None for arrival in purchase.arrivals)
        for purchase in history.purchases
        if purchase.policy == policy.name and purchase.cluster_id == policy.cluster_id and not purchase.imagined
    )


def _readings(
    policy: Policy, answers: Mapping[Question, Reading | Gap]
) -> tuple[tuple[CheckReading, ...], Reading | Gap | None]:
    unread = Gap(GapReason.UNREACHABLE, f"no Prometheus called {policy.prometheus}")

    def answer(query: str | None, max_age: timedelta | None) -> Reading | Gap | None:
        return None if query is None else answers.get(Question(query, max_age), unread)

    readings = tuple(
        CheckReading(
            check.name,
            load=answers.get(Question(check.query, check.max_age), unread),
            over=answer(getattr(check, "over", None), check.max_age),
        )
        for check in policy.checks
        if not isinstance(check, Schedule)
    )
    return readings, answer(policy.capacity.query, CAPACITY_MAX_AGE)


def _tell(decision: Decision, news: bool) -> None:
    tell = log.info if news else log.debug
    tell(
        "policy.evaluated",
        policy=decision.policy,
        outcome=decision.outcome.value,
        reason=decision.reason.value,
        add=decision.add,
        dry_run=decision.dry_run,
        sentence=decision.sentence,
    )
