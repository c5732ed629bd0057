"""The simulated cloud: what the market sells, and how its workers and tasks stand at a tick.

Whatever happens, happens at a tick: a worker that joins between two is ready at the second, where the first look can
see it. So a cloud is the same however many ticks are passed over in between, and can say when it changes next.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappop, heappush
from random import Random
from typing import TypeVar

from autoscaler.model import (
    Accepted,
    Answer,
    Cluster,
    Gap,
    GapReason,
    Inventory,
    Node,
    Purchase,
    Refused,
    Task,
    TaskState,
    Unclear,
)
from autoscaler.months import add_months
from autoscaler.policy import Policy
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import (
    FOREIGN,
    CapacityFault,
    ClusterFault,
    Fate,
    Fault,
    JoinDelay,
    Market,
    PurchaseFault,
    ReadingFault,
    WorkerFault,
)
from autoscaler.simulation.result import Level, Tenure

# A look needs the newest tasks of a cluster only: those that run, and those a purchase just made is to be told from.
_TASKS_TOLD = 20
_F = TypeVar("_F", bound=Fault)
_Lasting = TypeVar("_Lasting", ReadingFault, CapacityFault)
NEVER = 1 << 62
"""A tick that does not come."""


@dataclass(slots=True)
class _Machine:
    """A worker that is paid for."""

    instance_id: str
    purchase_id: int | None
    created_at: datetime
    bought: int  # ticks, all of them
    joins: int  # NEVER: it does not
    serves: int  # warm from then on
    ends: int
    ends_at: datetime | None  # the unrenewed term's end; the node list tells none of workers that renew themselves
    lost: list[tuple[int, int]] = field(default_factory=list)

    def listed(self, tick: int) -> bool:
        return self.joins <= tick < self.ends

    def ready(self, tick: int) -> bool:
        return self.listed(tick) and not (self.lost and any(since <= tick < until for since, until in self.lost))

    def serving(self, tick: int) -> bool:
        return self.serves <= tick and self.ready(tick)


@dataclass(slots=True)
class _Order:
    """A sale and its task."""

    task_id: str
    sold_at: datetime
    ends: int
    state: TaskState  # once it has ended
    machines: list[_Machine]

    def task(self, tick: int) -> Task:
        ended = tick >= self.ends
        joined = tuple(machine.instance_id for machine in self.machines if machine.joins <= tick)
        others = tuple(machine.instance_id for machine in self.machines if machine.joins > tick)
        return Task(
            task_id=self.task_id,
            state=self.state if ended else TaskState.RUNNING,
            created_at=self.sold_at,
            succeeded=joined,
            failed=others if ended else (),
            pending=() if ended else others,
            error="the simulated market lets workers fail" if ended and others else None,
        )


class SimulatedCloud:
    """One cluster, and everything bought for it."""

    def __init__(self, policy: Policy, load: Load, market: Market, ready: int) -> None:
        """``ready`` workers have served since long before the load begins."""
        self._policy = policy
        self._load = load
        self._market = market
        self._join = market.join or JoinDelay.fixed(policy.assumed_join)
        self._warm = -(-policy.warm_up // load.step)
        self._tick = 0
        self._changes: list[int] = []
        self._orders: list[_Order] = []
        # As it stands since the last change; None: not looked at since.
        self._look: tuple[tuple[Node, ...], tuple[Task, ...], Cluster] | None = None
        self._serving: int | None = None
        self._purchase_faults = deque(sorted(self._faults(PurchaseFault), key=lambda fault: fault.at))
        self._machines = [self._standing(n) for n in range(ready)]
        for fault in market.faults:
            if not isinstance(fault, PurchaseFault):
                self._changes_at(self._after(fault.at))
                if fault.until is not None:
                    self._changes_at(self._after(fault.until))
                if isinstance(fault, ClusterFault):  # a task of somebody else is believed to run for this long
                    self._changes_at(self._after(fault.at + policy.provision_timeout))

    # --- what it shows ---

    def turn_to(self, tick: int) -> None:
        """Let time pass until a tick, never backwards."""
        self._tick = tick
        while self._changes and self._changes[0] <= tick:
            self._lose(heappop(self._changes))
            self._look = self._serving = None

    def next_change(self) -> int:
        """The first tick after this one at which anything changes by itself; NEVER if nothing does."""
        return self._changes[0] if self._changes else NEVER

    def inventory(self, cluster_id: str) -> Inventory | Gap:
        """A whole look at the cluster as it stands, or a gap where a fault says so."""
        for fault in self._in_force(CapacityFault):
            return Gap(fault.reason, "a fault of the simulation")
        if self._look is None:
            self._look = self._looked()
        nodes, tasks, about = self._look
        return Inventory(cluster_id, self._now, about, nodes, tasks)

    def task(self, task_id: str) -> Task | None:
        """A task as it stands; None: there is none of this name."""
        return next((order.task(self._tick) for order in self._orders if order.task_id == task_id), None)

    def serving(self) -> int:
        """The workers that carry load now."""
        if self._serving is None:
            self._serving = sum(machine.serving(self._tick) for machine in self._machines)
        return self._serving

    def unread(self) -> Mapping[str | None, GapReason]:
        """The checks that cannot be read now, and why; None stands for everything Prometheus is asked."""
        return {fault.check: fault.reason for fault in self._in_force(ReadingFault)}

    # --- what it sells ---

    def scale_out(self, purchase: Purchase) -> Answer:
        """Sell what a purchase asks for, or do what the next fault says."""
        fault = None
        if self._purchase_faults and self._purchase_faults[0].at <= self._now:
            fault = self._purchase_faults.popleft()
        match None if fault is None else fault.fate:
            case Fate.UNKNOWN:
                return Unclear("a fault of the simulation: no answer, and nothing bought")
            case Fate.REFUSED:
                assert fault is not None
                return Refused(fault.refusal, "SimulatedRefusal", "a fault of the simulation")
            case Fate.UNANSWERED:
                self._sell(purchase, purchase.asked)
                return Unclear("a fault of the simulation: no answer, though it was bought")
            case Fate.FAILED:
                return Accepted(self._sell(purchase, 0))
            case Fate.PARTIAL:
                assert fault is not None
                return Accepted(self._sell(purchase, min(fault.arrive, purchase.asked)))
            case _:
                return Accepted(self._sell(purchase, None))

    def _sell(self, purchase: Purchase, arrive: int | None) -> str:
        """``arrive``: as many join, whatever chance says; None: chance says. Returns the task's id."""
        chance = Random(f"{self._market.seed}-{purchase.id}")
        terms = purchase.terms
        ends_at = add_months(self._now, terms.period)
        machines, latest = [], self._after(self._now + self._join.draw(chance))
        for n in range(1, purchase.asked + 1):
            joins = max(self._after(self._now + self._join.draw(chance)), self._tick + 1)
            fails = chance.random() < self._market.failing if arrive is None else n > arrive
            machines.append(
                _Machine(
                    instance_id=f"bought-{purchase.id:05}-{n:03}",
                    purchase_id=purchase.id,
                    created_at=self._now,
                    bought=self._tick,
                    joins=NEVER if fails else joins,
                    serves=NEVER if fails else joins + self._warm,
                    ends=NEVER if terms.auto_renew else self._after(ends_at),
                    ends_at=None if terms.auto_renew else ends_at,
                )
            )
        joined = [machine.joins for machine in machines if machine.joins != NEVER]
        order = _Order(
            task_id=f"T-{purchase.id:05}",
            sold_at=self._now,
            ends=max(joined, default=max(latest, self._tick + 1)),
            state=TaskState.SUCCESS if joined else TaskState.FAILED,
            machines=machines,
        )
        self._orders.append(order)
        self._machines += [machine for machine in machines if machine.joins != NEVER]
        self._changes_at(order.ends)
        for machine in machines:
            for tick in (machine.joins, machine.serves, machine.ends):
                self._changes_at(tick)
        self._look = None
        return order.task_id

    # --- what came of it ---

    def tenures(self) -> tuple[Tenure, ...]:
        """Every worker there ever was, oldest first."""
        return tuple(
            Tenure(
                instance_id=machine.instance_id,
                purchase_id=machine.purchase_id,
                since=self._load.at(max(machine.bought, 0)),
                ready_at=self._load.at(max(machine.joins, 0)) if machine.joins < self._load.ticks else None,
                ends_at=machine.ends_at,
            )
            for machine in self._machines
        )

    def levels(self) -> tuple[Level, ...]:
        """Where the workers stood, from the start to the end of the load."""
        moves: dict[int, list[int]] = {0: [0, 0, 0, 0]}  # by tick: more serving, in flight, lost, paid

        def move(tick: int, *, serving: int = 0, in_flight: int = 0, lost: int = 0, paid: int = 0) -> None:
            if tick < self._load.ticks:
                delta = moves.setdefault(max(tick, 0), [0, 0, 0, 0])
                for n, more in enumerate((serving, in_flight, lost, paid)):
                    delta[n] += more

        for machine in self._machines:
            serves = min(machine.serves, machine.ends)
            move(machine.bought, in_flight=1, paid=1)
            move(serves, in_flight=-1, serving=1)
            move(machine.ends, serving=-1, paid=-1)
            for since, until in machine.lost:
                if since < machine.ends:
                    move(since, serving=-1, lost=1)
                    move(min(until, machine.ends), serving=1, lost=-1)
        levels: list[Level] = []
        now = [0, 0, 0, 0]
        for tick in sorted(moves):
            now = [before + more for before, more in zip(now, moves[tick], strict=True)]
            level = Level(self._load.at(tick), *now)
            if not levels or (levels[-1].serving, levels[-1].in_flight, levels[-1].lost, levels[-1].paid) != tuple(now):
                levels.append(level)
        return tuple(levels)

    # --- within ---

    @property
    def _now(self) -> datetime:
        return self._load.at(self._tick)

    def _standing(self, number: int) -> _Machine:
        ends_at = self._market.standing_ends[number] if number < len(self._market.standing_ends) else None
        ends = NEVER if ends_at is None else max(0, self._after(ends_at))
        self._changes_at(ends)
        return _Machine(
            instance_id=f"standing-{number + 1:03}",
            purchase_id=None,
            created_at=self._load.start_at - max(timedelta(days=1), self._policy.warm_up),
            bought=-1,
            joins=-1,
            serves=-1,
            ends=ends,
            ends_at=ends_at,
        )

    def _lose(self, tick: int) -> None:
        for fault in self._faults(WorkerFault):
            if self._after(fault.at) == tick:
                until = NEVER if fault.until is None else self._after(fault.until)
                for machine in [machine for machine in self._machines if machine.serving(tick)][: fault.workers]:
                    machine.lost.append((tick, until))

    def _looked(self) -> tuple[tuple[Node, ...], tuple[Task, ...], Cluster]:
        tick, now, kind = self._tick, self._now, self._policy.worker.worker_instance_type
        nodes = tuple(
            Node(
                instance_id=machine.instance_id,
                instance_type=kind,
                role="Worker",
                ready=machine.ready(tick),
                state="running",
                created_at=machine.created_at,
                expires_at=machine.ends_at,
            )
            for machine in self._machines
            if machine.listed(tick)
        )
        tasks = [order.task(tick) for order in self._orders[-_TASKS_TOLD:]]
        state = "scaling" if any(task.state is TaskState.RUNNING for task in tasks) else "running"
        for n, fault in enumerate(self._faults(ClusterFault), 1):
            lasts = fault.at <= now < fault.until
            if fault.state == FOREIGN and fault.at <= now:
                tasks.append(Task(f"T-foreign-{n}", TaskState.RUNNING if lasts else TaskState.SUCCESS, fault.at))
            if lasts:
                state = "scaling" if fault.state == FOREIGN else fault.state
        about = Cluster(state=state, profile="Edge", size=len(nodes), node_quota=self._market.node_quota)
        return nodes, tuple(tasks), about

    def _faults(self, kind: type[_F]) -> Iterator[_F]:
        return (fault for fault in self._market.faults if isinstance(fault, kind))

    def _in_force(self, kind: type[_Lasting]) -> Iterator[_Lasting]:
        return (fault for fault in self._faults(kind) if fault.at <= self._now < fault.until)

    def _after(self, instant: datetime) -> int:
        """The first tick at an instant or after it."""
        return -((self._load.start_at - instant) // self._load.step)

    def _changes_at(self, tick: int) -> None:
        if self._tick < tick < self._load.ticks or tick == 0:
            heappush(self._changes, tick)
