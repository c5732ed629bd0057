"""The edge cloud's world: clusters, machines, tasks and orders, and how they stand at an instant.

Nothing here moves by itself. A machine knows when it is listed, joins and leaves, a task when it ends; every view is
computed for an instant, so that a test's clock may jump and a lagging list is merely a view of some time ago.
"""

import hashlib
from calendar import monthrange
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from autoscaler.sandbox.faults import HONEST, Fate, Listing
from autoscaler.sandbox.order_form import OrderForm
from autoscaler.sandbox.refusals import Refusal

Delay = timedelta | Callable[[], timedelta]


@dataclass(frozen=True, slots=True)
class Order:
    """A sale: what was really bought, whatever the buyer was told."""

    at: datetime
    cluster_id: str
    count: int
    nonce: str | None  # None: bought by the console
    body: Mapping[str, object]  # as it was sent, the password redacted
    task_id: str | None  # None: a sale by the console that shows no task
    instance_ids: tuple[str, ...]
    origin: Literal["api", "console"]


@dataclass(slots=True)
class Machine:
    """A node of a cluster, from its order to the end of its term."""

    instance_id: str
    instance_type: str
    role: Literal["Worker", "Master"]
    created_at: datetime
    joins_at: datetime | None  # None: it never does, and is not listed either
    expires_at: datetime | None  # None: not bought by the month
    renews_every: int | None = None  # months
    listed_at: datetime | None = None  # None: from its creation on
    lost_at: datetime | None = None

    def listed(self, at: datetime) -> bool:
        """Whether an honest list shows it."""
        expires_at = self.term_end(at)
        since = self.listed_at or self.created_at
        return self.joins_at is not None and since <= at and (expires_at is None or at < expires_at)

    def ready(self, at: datetime) -> bool:
        """Whether it carries load."""
        joined = self.joins_at is not None and self.joins_at <= at
        return joined and self.listed(at) and (self.lost_at is None or at < self.lost_at)

    def term_end(self, at: datetime) -> datetime | None:
        """End of the paid term, renewals up to ``at`` included."""
        end = self.expires_at
        while end is not None and self.renews_every is not None and end <= at:
            end = add_months(end, self.renews_every)
        return end


@dataclass(slots=True)
class ScaleOutTask:
    """The task of a sale."""

    task_id: str
    cluster_id: str
    created_at: datetime
    ends_at: datetime
    machines: Sequence[Machine]
    fate: Fate
    asks: int = 0

    def state(self, at: datetime) -> str:
        """The API's word for how it stands."""
        if at < self.ends_at:
            return "running"
        if self.fate.state is not None:
            return self.fate.state
        return "success" if all(machine.joins_at is not None for machine in self.machines) else "failed"

    def result(self, at: datetime) -> list[tuple[str, str]]:
        """Instance id and ``success``, ``failed`` or ``initial`` for each worker asked for."""
        waiting = "initial" if at < self.ends_at else "failed"
        return [
            (machine.instance_id, "success" if machine.joins_at is not None and machine.joins_at <= at else waiting)
            for machine in self.machines
        ]

    def hidden(self, at: datetime) -> bool:
        """Whether this ask is answered with 404; each call is one ask."""
        self.asks += 1
        return self.asks <= self.fate.hidden_asks or at < self.created_at + self.fate.hidden_for


@dataclass(slots=True)
class Cluster:
    """A cluster and all that was ever in it."""

    cluster_id: str
    profile: str
    created_at: datetime
    state: str | None = None  # in place of running or scaling
    sells_while_scaling: bool = False
    machines: list[Machine] = field(default_factory=list)
    tasks: list[ScaleOutTask] = field(default_factory=list)  # oldest first
    listing: Listing = HONEST
    looks: int = 0

    def state_at(self, at: datetime) -> str:
        """``running``, or ``scaling`` while a task runs."""
        scaling = any(task.state(at) == "running" for task in self.tasks)
        return self.state or ("scaling" if scaling else "running")

    def nodes(self, at: datetime) -> list[Machine]:
        """What an honest list shows."""
        return [machine for machine in self.machines if machine.listed(at)]

    def ready_workers(self, at: datetime) -> list[Machine]:
        """The workers that carry load."""
        return [machine for machine in self.machines if machine.role == "Worker" and machine.ready(at)]

    def look(self, at: datetime, *, begins: bool) -> tuple[list[Machine], datetime]:
        """What its list shows, and the instant it is a view of."""
        self.looks += begins
        seen = at - self.listing.lag
        if self.looks % 2 == 0:
            seen -= self.listing.back_and_forth
        return self.nodes(seen), seen


class World:
    """All clusters, every sale, and the rules by which workers are sold and join."""

    def __init__(self, *, join_delay: Delay, list_delay: timedelta, node_quota: int) -> None:
        self.join_delay = join_delay
        self.list_delay = list_delay
        self.node_quota = node_quota
        self.clusters: dict[str, Cluster] = {}
        self.tasks: dict[str, ScaleOutTask] = {}
        self.orders: list[Order] = []
        self.fates: deque[Fate] = deque()

    def cluster(self, cluster_id: str) -> Cluster:
        """Raises ``Refusal`` ErrorClusterNotFound."""
        if cluster_id not in self.clusters:
            raise Refusal(404, "ErrorClusterNotFound", "cluster not found")
        return self.clusters[cluster_id]

    def add_cluster(
        self, cluster_id: str, at: datetime, *, workers: int, masters: int, instance_type: str, profile: str
    ) -> Cluster:
        """A cluster whose nodes have been ready since the day before ``at`` and are not bought by the month."""
        cluster = Cluster(cluster_id, profile, at - timedelta(days=1))
        for number in range(workers + masters):
            cluster.machines.append(
                Machine(
                    instance_id=_identifier("i-", cluster_id, "first", number),
                    instance_type=instance_type if number < workers else "ecs.g6.large",
                    role="Worker" if number < workers else "Master",
                    created_at=cluster.created_at,
                    joins_at=cluster.created_at,
                    expires_at=None,
                )
            )
        self.clusters[cluster_id] = cluster
        return cluster

    def sell(
        self,
        cluster_id: str,
        at: datetime,
        form: OrderForm,
        *,
        nonce: str | None,
        fate: Fate | None = None,
        with_task: bool = True,
    ) -> Order:
        """Sell what the form asks for; without a nonce it is a sale by the console. Its fate is the next of ``fates``.

        Raises ``Refusal``: the cluster must exist, not be at work and have room.
        """
        cluster = self.cluster(cluster_id)
        state = cluster.state_at(at)
        if state != "running" and nonce is not None and not (state == "scaling" and cluster.sells_while_scaling):
            raise Refusal(400, "InvalidStatus.Cluster", f"cannot operate cluster where state is {state}")
        if len(cluster.nodes(at)) + form.count > self.node_quota:
            raise Refusal(400, "QuotaExceeded.Node", f"a cluster may have {self.node_quota} nodes")
        if fate is None:
            fate = self.fates.popleft() if self.fates else Fate()
        arrive = form.count if fate.arrive is None else fate.arrive
        machines = [
            Machine(
                instance_id=_identifier("i-", cluster_id, at, len(self.orders), number),
                instance_type=form.instance_type,
                role="Worker",
                created_at=at,
                joins_at=at + self._delay(fate.joins_after) if number < arrive else None,
                expires_at=add_months(at, form.months),
                renews_every=form.renews_every,
                listed_at=at + self.list_delay,
            )
            for number in range(form.count)
        ]
        cluster.machines.extend(machines)
        task_id = None
        if with_task:
            last = max((machine.joins_at for machine in machines if machine.joins_at is not None), default=None)
            ends_at = at + fate.ends_after if fate.ends_after is not None else last or at + self._delay(None)
            task_id = _identifier("T-", cluster_id, at, len(self.orders))
            task = ScaleOutTask(task_id, cluster_id, at, ends_at, machines, fate)
            self.tasks[task_id] = task
            cluster.tasks.append(task)
        order = Order(
            at=at,
            cluster_id=cluster_id,
            count=form.count,
            nonce=nonce,
            body=form.shown,
            task_id=task_id,
            instance_ids=tuple(machine.instance_id for machine in machines),
            origin="api" if nonce is not None else "console",
        )
        self.orders.append(order)
        return order

    def _delay(self, chosen: timedelta | None) -> timedelta:
        if chosen is not None:
            return chosen
        return self.join_delay if isinstance(self.join_delay, timedelta) else self.join_delay()


def add_months(at: datetime, months: int) -> datetime:
    """The same day so many months on, or that month's last."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    return at.replace(year=year, month=month + 1, day=min(at.day, monthrange(year, month + 1)[1]))


def _identifier(prefix: str, *parts: object) -> str:
    return prefix + hashlib.sha256(repr(parts).encode()).hexdigest()[:24]
