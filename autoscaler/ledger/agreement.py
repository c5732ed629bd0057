"""What every form of the ledger decides alike.

The forms differ in where rows are kept and how writers are kept apart. Whatever is a matter of judgement instead
(which purchases a policy's history holds, whether a decision is news, who may send) is written once, here, over values.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime, timedelta

from autoscaler.decision import Decision
from autoscaler.ledger.errors import LedgerUnavailable
from autoscaler.ledger.records import Mark, MarkName
from autoscaler.model import (
    Arrival,
    History,
    Override,
    OverrideKind,
    Purchase,
    PurchaseState,
    RefusalClass,
    Restoral,
    Run,
)
from autoscaler.policy import Policy
from autoscaler.purchase import NOTHING_BOUGHT, UNRESOLVED

COMMITTING = frozenset(PurchaseState) - NOTHING_BOUGHT
LATE = frozenset({PurchaseState.FAILED, PurchaseState.EXPIRED})
"""Ended, yet workers that are missing may turn up: neither a timeout nor a task's word is proof."""

REMEMBERED = frozenset({PurchaseState.REJECTED, PurchaseState.NOT_BOUGHT})
REMEMBERED_COUNT = 20
"""Newest purchases of each remembered state in a history: backoff stops growing after four (5, 10, 20, 30 minutes)."""

SAMPLES_KEPT = timedelta(hours=48)
KEYS_KEPT = timedelta(hours=24)
"""How long a repeated request for an order is known for one: longer than any client goes on retrying."""

SENDABLE_FOR = timedelta(seconds=30)
"""An older reservation rests on readings that are no longer true."""

FATE = (
    "state",
    "sent_at",
    "answered_at",
    "ended_at",
    "task_id",
    "request_id",
    "refusal",
    "code",
    "message",
    "failed",
    "failures",
    "adopted",
    "overdue_at",
    "retried_at",
)
"""The fields of a purchase that change after its reservation, besides its arrivals."""

FOUND_A_COPY = "it bears the mark of a copy and is in use"
ENDED_BY_RESTORING = ("ledger", "it was restored, and the order may have been served since it was copied")
"""Who ends an order that cannot be told from one given since the ledger was restored, and why."""

_CLOCKS_APART = timedelta(seconds=30)

_FIXED = tuple(field.name for field in fields(Purchase) if field.name not in (*FATE, "arrivals"))


def shared_budgets(policies: Iterable[Policy]) -> frozenset[str]:
    """Names of the shared budgets that any of the policies draws on."""
    return frozenset(b.shared for policy in policies for b in policy.limits.budgets if b.shared is not None)


def assemble(
    policies: Sequence[Policy],
    purchases: Iterable[Purchase],
    runs: Mapping[tuple[str, str], tuple[Run, ...]],
    restoral: Restoral | None,
    orders: Iterable[Override],
) -> dict[str, History]:
    """The history of each policy by name, out of purchases (oldest first) that may be more than it needs.

    ``runs`` is by policy and cluster; ``orders`` are those in force. A purchase belongs to a history if it is the
    policy's own in the same cluster, or serves one of the orders (whichever cluster the policy was for then), is open
    in that cluster, the cluster's newest refusal of a credential, or committed against a shared budget. Imagined ones
    are seen by dry runs only.
    """
    in_force = {order.id for order in orders}
    of_order: dict[str, list[Purchase]] = defaultdict(list)
    own: dict[tuple[str, str], list[Purchase]] = defaultdict(list)
    of_cluster: dict[str, list[Purchase]] = defaultdict(list)
    of_budget: dict[str, list[Purchase]] = defaultdict(list)
    of_cloud: dict[tuple[str, str], Purchase] = {}
    for purchase in purchases:
        if purchase.state is not PurchaseState.CANCELLED:
            own[purchase.policy, purchase.cluster_id].append(purchase)
        if purchase.state in UNRESOLVED or purchase.refusal is RefusalClass.ACCOUNT:
            of_cluster[purchase.cluster_id].append(purchase)
        if purchase.state in COMMITTING:
            for name in purchase.shared_budgets:
                of_budget[name].append(purchase)
            if purchase.order_id in in_force:
                of_order[purchase.policy].append(purchase)
        if purchase.refusal is RefusalClass.GONE:
            of_cloud[purchase.endpoint, purchase.credential] = purchase
    # The newest of each cloud and credential alone: a person who ends that one ends those before it too.
    clouds = sorted(of_cloud.values(), key=lambda p: p.id)[-REMEMBERED_COUNT:]
    gone = tuple(purchase for purchase in clouds if purchase.retried_at is None)

    def history(policy: Policy) -> History:
        kept: list[Purchase] = []
        remembered: dict[PurchaseState, list[Purchase]] = defaultdict(list)
        for purchase in own[policy.name, policy.cluster_id]:
            if policy.dry_run or not purchase.imagined:
                (remembered[purchase.state] if purchase.state in REMEMBERED else kept).append(purchase)
        for newest in remembered.values():
            kept += newest[-REMEMBERED_COUNT:]
        refused_account: dict[str, Purchase] = {}
        for purchase in of_cluster[policy.cluster_id]:
            if purchase.imagined and not policy.dry_run:
                continue
            if purchase.state in UNRESOLVED:
                kept.append(purchase)
            else:
                refused_account[purchase.credential] = purchase
        kept += refused_account.values()
        for purchases in (of_order[policy.name], *(of_budget[name] for name in shared_budgets([policy]))):
            kept += [purchase for purchase in purchases if policy.dry_run or not purchase.imagined]
        by_id = {purchase.id: purchase for purchase in kept}
        return History(
            purchases=tuple(by_id[key] for key in sorted(by_id)),
            runs=runs.get((policy.name, policy.cluster_id), ()),
            gone=gone,
            restoral=restoral,
        )

    return {policy.name: history(policy) for policy in policies}


def is_news(previous: Decision | None, decision: Decision) -> bool:
    """Whether a decision says something else than the one before it, and is kept for that."""
    return previous is None or (previous.cluster_id, previous.outcome, previous.reason, previous.add) != (
        decision.cluster_id,
        decision.outcome,
        decision.reason,
        decision.add,
    )


def is_copy(marks: Sequence[Mark], now: datetime) -> bool:
    """Whether a ledger with these marks, oldest first, is a copy that nobody has put into use yet.

    LedgerUnavailable if it is one of later than ``now``: what it may lack is waited for from when it is put into use,
    and by a clock that is set right afterwards, as a machine's that has just begun, that would be over at once.
    """
    if not marks or marks[-1].name is not MarkName.BACKUP:
        return False
    if marks[-1].at > now + _CLOCKS_APART:
        why = f"the ledger was copied at {marks[-1].at:%Y-%m-%d %H:%M:%SZ}, and it is {now:%Y-%m-%d %H:%M:%SZ} here"
        mend = "set the clock, and it goes on by itself; or say `autoscaler ledger restored`"
        raise LedgerUnavailable(why, mend)
    return True


def restoral_of(marks: Sequence[Mark], now: datetime) -> Restoral | None:
    """What a ledger's marks, oldest first, say that it may have forgotten.

    A copy that nobody has put into use yet is taken to be put into use ``now``.
    """
    last = marks[-1] if marks else None
    copied_at = None
    if last is not None and last.name is MarkName.RESTORED and len(marks) > 1 and marks[-2].name is MarkName.BACKUP:
        copied_at = marks[-2].at
    match last:
        case Mark(name=MarkName.BEGUN, at=at):
            return Restoral(at, begun=True)
        case Mark(name=MarkName.RESTORED, at=at):
            return Restoral(at, copied_at)
        case Mark(name=MarkName.BACKUP, at=at):
            return Restoral(now, at)
        case _:
            return None


def to_end(restored: Mark, overrides: Iterable[Override]) -> list[int]:
    """Ids of the orders to buy that end as the ledger is restored: they are in the copy, and say that they came later.

    A clock was ahead, or that of whoever restores it is behind. Orders of before are held, for what the copy lacks may
    have served them; these would pass for new ones.
    """
    return [order.id for order in overrides if order.kind is OverrideKind.BUY and order.starts_at >= restored.at]


def why_not_claim(stored: Purchase, reserved: Purchase) -> str | None:
    """One clause saying why the stored purchase of that id is not there to be sent; None: it waits for that."""
    if stored.nonce != reserved.nonce:
        return "its id is another purchase's: the ledger was restored since it was reserved"
    return None if stored.state is PurchaseState.INTENDED else f"it is {stored.state} already"


def why_not_send(
    purchase: Purchase, *, leased: bool, overrides: Iterable[Override], restoral: Restoral | None, now: datetime
) -> str | None:
    """One clause saying what forbids sending an intended purchase; None: it may be sent. ``overrides`` are active."""
    if not leased:
        return "the lease of its cluster is not held by this daemon"
    if restoral is not None and restoral.at > purchase.reserved_at:
        return "the ledger was restored after it was reserved"
    for order in overrides:
        if order.kind is OverrideKind.FREEZE and order.names(purchase.policy):
            return f"frozen by {order.author}: {order.reason}"
    age = now - purchase.reserved_at
    if age > SENDABLE_FOR:
        return f"it was reserved {age.total_seconds():.0f} s ago, and {SENDABLE_FOR.total_seconds():.0f} s is the limit"
    if age < -SENDABLE_FOR:
        return f"the clock was set back by {-age.total_seconds():.0f} s since it was reserved"
    return None


def changed(before: Purchase, after: Purchase) -> Purchase:
    """``after`` with its arrivals in order, those known before as they were. ValueError if a fixed field differs."""
    touched = [name for name in _FIXED if getattr(before, name) != getattr(after, name)]
    if touched:
        raise ValueError(f"purchase {before.id}: {', '.join(touched)} cannot change once it is reserved")
    known = {arrival.instance_id: arrival for arrival in before.arrivals}
    return replace(after, arrivals=in_order(known.get(arrival.instance_id, arrival) for arrival in after.arrivals))


def in_order(arrivals: Iterable[Arrival]) -> tuple[Arrival, ...]:
    """Arrivals as every form tells them: by time, then instance id."""
    return tuple(sorted(arrivals, key=lambda arrival: (arrival.at, arrival.instance_id)))


def is_stale(newest_at: datetime | None, at: datetime, now: datetime) -> bool:
    """Whether something newer than what was seen ``at`` was recorded already, as of ``now`` by the writer's clock.

    What bears a later time than ``now`` was recorded by a clock that was ahead: it gives way, lest nothing is recorded
    until that time has come.
    """
    return newest_at is not None and at < newest_at <= now


def minute(at: datetime) -> datetime:
    """The start of the minute that ``at`` is in."""
    return at.replace(second=0, microsecond=0)
