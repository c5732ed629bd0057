"""Overview: where every policy stands, read from the ledger at once, for every surface that shows it.

A handful of queries however many policies there are; what a policy's latest evaluation found is taken from it and not
worked out again. Those that need a person come first, each with the reason in words.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from autoscaler.decision import Decision
from autoscaler.duration import format_duration
from autoscaler.facts import Reason
from autoscaler.model import CheckReading, GapReason, Outcome, Override, PaidWorker, Purchase, PurchaseState
from autoscaler.months import add_months
from autoscaler.orders import RETIRED_AFTER, Progress, progress
from autoscaler.policy import Check, Policy, Schedule
from autoscaler.purchase import OPEN
from autoscaler.supply import Lapse

OVERDUE_PERIODS = 3
"""So many periods without an evaluation are no missed run. A replica that died is stood in for within 20 s."""
OVERDUE_LEAST = timedelta(seconds=60)
ELSEWHERE_FOR = timedelta(minutes=5)
LAPSES_WITHIN = timedelta(days=7)


class Need(StrEnum):
    """Why somebody has to look after a policy, the most urgent first."""

    UNKNOWN_PURCHASE = "unknown_purchase"
    REFUSED = "refused"
    OVERDUE = "overdue"
    CAPACITY_GAP = "capacity_gap"
    REQUIRED_GAP = "required_gap"
    BLOCKED = "blocked"


_URGENCY = {need: place for place, need in enumerate(Need)}


@dataclass(frozen=True, slots=True)
class Attention:
    """One reason why somebody has to look after a policy."""

    need: Need
    says: str  # one clause, with what to do where that is one command


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one policy stands."""

    name: str
    policy: Policy | None  # as it is in force; None: its file cannot be read here
    decision: Decision | None  # the latest; None: it has not been evaluated yet
    readings: tuple[CheckReading, ...]  # of that evaluation
    attention: tuple[Attention, ...]  # the most urgent first; none: it needs nobody
    overrides: tuple[Override, ...]  # in force for it, by id
    purchases: tuple[Purchase, ...]  # open, oldest first
    lapses: tuple[Lapse, ...]  # of the next seven days, the next first

    @property
    def load(self) -> str:
        """What the checks say, in words: ``"sessions" wants 15 (5873 at 400 each)``."""
        return _said(self.decision, "demand")

    @property
    def budgets(self) -> str:
        """What the tightest budget left at the latest evaluation, in words; empty: it has none."""
        says = _said(self.decision, "budgets")
        return "" if says == "none" else says

    @property
    def budget_left(self) -> int | None:
        """Workers that it left; None: there is no budget, or no evaluation."""
        found = re.search(r" leaves (\d+), ", self.budgets)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Overview:
    """Where everything stands."""

    at: datetime
    policies: tuple[Standing, ...]  # those that need a person first, then the blocked ones, then by name
    overrides: tuple[Override, ...]  # in force, by id
    progress: Mapping[int, tuple[Progress, ...]]  # of the buy orders among them, by their id
    purchases: tuple[Purchase, ...]  # open, oldest first
    replicas: Mapping[str, int]  # clusters held by each daemon that is at work
    retired: tuple[str, ...]  # policies that the ledger knows and nobody evaluates any more, by name

    def standing(self, policy: str) -> Standing | None:
        """Where one policy stands; None: there is none of this name."""
        return next((standing for standing in self.policies if standing.name == policy), None)


class Lease(Protocol):
    """Who works on a cluster."""

    @property
    def holder(self) -> str: ...


class Ledger(Protocol):
    """What is read."""

    def latest(self) -> Mapping[str, Decision]: ...

    def readings(self) -> Mapping[str, tuple[CheckReading, ...]]: ...

    def overrides(self, now: datetime) -> tuple[Override, ...]: ...

    def purchases(
        self,
        *,
        states: Collection[PurchaseState] | None = None,
        orders: Collection[int] | None = None,
        limit: int | None = 50,
    ) -> tuple[Purchase, ...]: ...

    def paid_workers(self, expiring_before: datetime) -> tuple[PaidWorker, ...]: ...

    def holders(self) -> Sequence[Lease]: ...


def overview(ledger: Ledger, policies: Sequence[Policy], now: datetime) -> Overview:
    """Where everything stands at ``now``. ``policies``: those in force, as far as their files can be read here."""
    latest, readings = ledger.latest(), ledger.readings()
    overrides = ledger.overrides(now)
    purchases = ledger.purchases(states=OPEN, limit=None)[::-1]
    in_force = {policy.name: policy for policy in policies}
    # Of a policy whose file is not read here only its evaluations tell that somebody still evaluates it.
    alive = ELSEWHERE_FOR if in_force else RETIRED_AFTER
    names = in_force.keys() | {name for name, decision in latest.items() if now - decision.at < alive}
    of_policy: dict[str, list[Purchase]] = defaultdict(list)
    for purchase in purchases:
        of_policy[purchase.policy].append(purchase)
    lapses = _lapses(ledger.paid_workers(now + LAPSES_WITHIN), policies, now)
    standings = [
        Standing(
            name=name,
            policy=in_force.get(name),
            decision=latest.get(name),
            readings=readings.get(name, ()),
            attention=tuple(_attention(in_force.get(name), latest.get(name), of_policy[name], now)),
            overrides=tuple(order for order in overrides if order.names(name)),
            purchases=tuple(of_policy[name]),
            lapses=lapses.get(name, ()),
        )
        for name in names
    ]
    return Overview(
        at=now,
        policies=tuple(sorted(standings, key=_place)),
        overrides=overrides,
        progress=progress(ledger, overrides),
        purchases=purchases,
        replicas=dict(sorted(Counter(lease.holder for lease in ledger.holders()).items())),
        retired=tuple(sorted(latest.keys() - names)),
    )


def _place(standing: Standing) -> tuple[int, str]:
    return min((_URGENCY[each.need] for each in standing.attention), default=len(Need)), standing.name


def _attention(
    policy: Policy | None, decision: Decision | None, purchases: Iterable[Purchase], now: datetime
) -> Iterator[Attention]:
    """Why somebody has to look after a policy, the most urgent first."""
    for purchase in purchases:
        if purchase.state is PurchaseState.UNKNOWN:
            since = _length(now - (purchase.sent_at or purchase.reserved_at))
            workers = "worker" if purchase.asked == 1 else f"{purchase.asked} workers"
            says = f"for {since} nobody knows whether purchase {purchase.id} bought its {workers}"
            yield Attention(Need.UNKNOWN_PURCHASE, f"{says}; see `autoscaler purchases show {purchase.id}`")
    if decision is None:
        yield Attention(Need.OVERDUE, "it has not been evaluated yet: is a daemon at work?")
        return
    # A refusal stands in its rule's verdict also while nothing is needed and it blocks nothing.
    refusal = _said(decision, "refused")
    if refusal not in ("", "none"):
        yield Attention(Need.REFUSED, refusal)
    if policy is not None and now - decision.at > max(OVERDUE_PERIODS * policy.evaluate_every, OVERDUE_LEAST):
        age, period = _length(now - decision.at), format_duration(policy.evaluate_every)
        yield Attention(Need.OVERDUE, f"it was last evaluated {age} ago, and should be every {period}")
    required = {check.name for check in policy.checks if _is_required(check)} if policy is not None else set()
    for name, gap in decision.gaps:
        if name == "capacity":
            yield Attention(
                Need.CAPACITY_GAP, f"the workers cannot be counted ({gap.reason}: {gap.detail}), and nothing is bought"
            )
        elif name in required or decision.reason is Reason.GAP or gap.reason is GapReason.CLOCK:
            word = "required " if name in required else ""
            yield Attention(Need.REQUIRED_GAP, f'{word}"{name}" has no reading ({gap.reason}: {gap.detail})')
    if decision.outcome is Outcome.BLOCKED and decision.reason not in _SAID_BY_OTHERS:
        yield Attention(Need.BLOCKED, decision.sentence)


_SAID_BY_OTHERS = frozenset(
    {
        Reason.PURCHASE_UNKNOWN,
        Reason.REFUSED_POLICY,
        Reason.REFUSED_ACCOUNT,
        Reason.REFUSED_GONE,
        Reason.PURCHASE_OPEN,  # being sent: nobody has to do anything
    }
)


def _is_required(check: Check) -> bool:
    return not isinstance(check, Schedule) and check.required


def _lapses(workers: Iterable[PaidWorker], policies: Sequence[Policy], now: datetime) -> dict[str, tuple[Lapse, ...]]:
    """When workers of each policy lapse within the next days, by its name."""
    of_kind: dict[tuple[str, str], list[Policy]] = defaultdict(list)
    for policy in policies:
        of_kind[policy.cluster_id, policy.worker.worker_instance_type].append(policy)
    ends: dict[str, Counter[datetime]] = defaultdict(Counter)
    for worker in workers:
        name, renews = worker.policy, worker.terms is not None and worker.terms.auto_renew
        if name is None:
            # Where two policies share cluster and type, the list does not tell whose worker it is.
            (owner, *others) = of_kind.get((worker.cluster_id, worker.instance_type)) or (None,)
            if owner is None or others:
                continue
            name, renews = owner.name, owner.worker.worker_auto_renew
        at = worker.expires_at
        if at is None and worker.terms is not None and worker.bought_at is not None:
            at = add_months(worker.bought_at, worker.terms.period)
        if at is not None and not renews and now <= at < now + LAPSES_WITHIN:
            ends[name][at] += 1
    return {name: tuple(Lapse(at, count) for at, count in sorted(found.items())) for name, found in ends.items()}


def _said(decision: Decision | None, rule: str) -> str:
    verdicts = () if decision is None else decision.verdicts
    return next((verdict.says for verdict in verdicts if verdict.rule == rule), "")


def _length(duration: timedelta) -> str:
    """To the second; from an hour on, to the minute."""
    grain = timedelta(minutes=1) if duration >= timedelta(hours=1) else timedelta(seconds=1)
    return format_duration(duration // grain * grain)
