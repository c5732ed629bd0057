"""The rules of a decision, in the order in which they speak: each takes the draft so far and the facts.

All of them run and leave their verdict, also after one has said no. A rule that says no does not make the number
smaller, so that those after it, and the sentence, still know what would have been bought.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil

from autoscaler.budget import Room, room
from autoscaler.duration import format_duration
from autoscaler.facts import Draft, Facts, Reason
from autoscaler.model import Gap, GapReason, OverrideKind, Purchase, PurchaseState, RefusalClass, Run
from autoscaler.policy import Policy, Schedule
from autoscaler.purchase import NOTHING_BOUGHT, UNRESOLVED, done_of_order, terms
from autoscaler.restoral import forgotten
from autoscaler.strategy import Wish, next_opening_at, number, open_windows
from autoscaler.supply import dropped_out

Rule = Callable[[Draft, Facts], Draft]

# A hole in the watch: more than this many periods without an evaluation. Two and a half forgive one missed run.
HOLE_PERIODS = 2.5
BACKOFF_FIRST = timedelta(minutes=5)
BACKOFF_MOST = timedelta(minutes=30)
# A busy cluster is looked at again after this long; it does not make the backoff grow.
BUSY_PAUSE = timedelta(seconds=30)


def demand(draft: Draft, facts: Facts) -> Draft:
    """The largest number wanted by the checks that have a reading; a required check's gap holds all of it."""
    required = {check.name for check in facts.policy.checks if not isinstance(check, Schedule) and check.required}
    gaps = [(name, wish) for name, wish in draft.wishes if isinstance(wish, Gap)]
    wanting = [wish for _, wish in draft.wishes if isinstance(wish, Wish) and wish.wanted is not None]
    missed = [(name, gap) for name, gap in gaps if name in required]
    if missed or (gaps and len(gaps) == len(draft.wishes)):
        name, gap = (missed or gaps)[0]
        text = f'{"required " if missed else ""}"{name}" has no reading ({gap.reason}: {gap.detail})'
        return draft.says("demand", text, waits=Reason.GAP, waits_for=text)
    if not wanting:
        idle = [wish for _, wish in draft.wishes if isinstance(wish, Wish)]
        says = ", ".join(f'"{wish.check}" wants nothing ({wish.says})' for wish in idle)
        says = says or "no check asks for workers"
        return draft.says("demand", says, load=says, cause=says)
    top = max(wanting, key=lambda wish: wish.wanted or 0)
    assert top.wanted is not None
    says = f'"{top.check}" wants {ceil(top.wanted)} ({top.says})'
    return draft.says("demand", says, demand=top.wanted, wanted=top.wanted, load=says, cause=says)


def stabilization(draft: Draft, facts: Facts) -> Draft:
    """Let through only the smallest demand seen throughout the window; hold while the window is not full."""
    window = facts.policy.stabilization_window
    if not window:
        return draft.says("stabilization", "no window")
    if draft.demand is None:
        return draft.says("stabilization", "no demand to watch")
    start = facts.now - window
    watched = _watched(facts.history.runs, facts.policy, facts.now)
    length = format_duration(window)
    since = watched[0].first_at if watched else facts.now
    if since > start:
        text = f"its {length} stabilization window is full at {_at(since + window, facts.now)}"
        recheck = [since + window]
        return draft.says("stabilization", text, recheck, wanted=None, waits=Reason.STABILIZATION, waits_for=text)
    demand = draft.demand
    inside = [run for run in watched if run.last_at > start]
    lower = [run for run in inside if run.wanted is None or run.wanted < demand]
    if not lower:
        return draft.says("stabilization", f"wanted throughout the last {length}")
    amounts = [run.wanted for run in lower if run.wanted is not None]
    least = min(amounts) if len(amounts) == len(lower) else None
    text = f"no workers were wanted at some time in the last {length}"
    if least is not None:
        text = f"only {ceil(least)} wanted throughout the last {length}"
    recheck = [run.last_at + window for run in lower]
    # A fraction of a worker less is no other wish; an operator would read "wants 18, only 18 wanted" as a mistake.
    cause = draft.load if least is not None and ceil(least) == ceil(demand) else f"{draft.load}, {text}"
    return draft.says(
        "stabilization", text, recheck, wanted=least, cause=cause, waits=Reason.STABILIZATION, waits_for=text
    )


def _watched(runs: tuple[Run, ...], policy: Policy, now: datetime) -> list[Run]:
    """The runs that lead up to ``now`` without a hole, oldest first; none, where a clock that was ahead made them."""
    hole = HOLE_PERIODS * policy.evaluate_every
    version = policy.version
    watched: list[Run] = []
    until = now
    for run in reversed(runs):
        if run.policy_version != version or not timedelta(0) <= until - run.last_at <= hole:
            break
        watched.append(run)
        until = run.first_at
    return watched[::-1]


def targets(draft: Draft, facts: Facts) -> Draft:
    """Numbers to reach whatever the load: the minimum, open schedule windows, floors."""
    policy, now = facts.policy, facts.now
    reach = [(policy.limits.minimum, f"minimum wants {policy.limits.minimum}")] if policy.limits.minimum else []
    recheck: list[datetime | None] = []
    for check in policy.checks:
        if isinstance(check, Schedule):
            for opening in open_windows(check, now):
                workers = opening.window.workers
                reach.append((workers, f'"{check.name}" wants {workers} until {_at(opening.closes_at, now)}'))
                recheck.append(opening.closes_at)
            recheck.append(next_opening_at(check, now))
    for order in facts.overrides:
        if order.kind is OverrideKind.FLOOR and order.workers is not None:
            ends = _at(order.ends_at, now)
            reach.append((order.workers, f'floor {order.workers} by {order.author} until {ends} ("{order.reason}")'))
            recheck.append(order.ends_at)
    if not reach:
        return draft.says("targets", "none", recheck)
    workers, says = max(reach, key=lambda pair: pair[0])
    if draft.wanted is not None and draft.wanted >= workers:
        return draft.says("targets", says, recheck)
    return draft.says("targets", says, recheck, wanted=Fraction(workers), cause=says)


def supply(draft: Draft, facts: Facts) -> Draft:
    """What is missing: the number wanted, rounded up once, less the supply there is."""
    if isinstance(draft.supply, Gap):
        gap = draft.supply
        reason = Reason.CLOCK if gap.reason is GapReason.CLOCK else Reason.CAPACITY_GAP
        text = f"the workers cannot be counted ({gap.reason}: {gap.detail})"
        return draft.concludes("supply", reason, text)
    for name, wish in draft.wishes:
        if isinstance(wish, Gap) and wish.reason is GapReason.CLOCK:
            # Cooldown, windows, terms: all are told by the clock, whoever asks for the workers.
            return draft.concludes("supply", Reason.CLOCK, f'"{name}" has no reading ({wish.reason}: {wish.detail})')
    total = draft.supply.total
    wanted = ceil(draft.wanted) if draft.wanted is not None else 0
    if wanted > total:
        missing = wanted - total
        return draft.says("supply", f"{wanted} wanted, {total} in supply", missing=missing, add=missing)
    if draft.waits is Reason.GAP:
        return draft.concludes("supply", Reason.GAP, draft.waits_for)
    if draft.waits is Reason.STABILIZATION and draft.demand is not None and ceil(draft.demand) > total:
        return draft.concludes("supply", Reason.STABILIZATION, draft.waits_for)
    text = f"{wanted} wanted, {total} in supply" if draft.wanted is not None else f"nothing wanted, {total} in supply"
    return draft.concludes("supply", Reason.ENOUGH, text)


def orders(draft: Draft, facts: Facts) -> Draft:
    """What the oldest active buy order still lacks is bought first, whatever supply says, by a purchase of its own."""
    recheck = []
    # Also those of a cluster that the policy was for before: an order is for the policy, and is served once.
    own = [purchase for purchase in facts.history.purchases if purchase.policy == facts.policy.name]
    for order in sorted(facts.overrides, key=lambda order: order.id):
        if order.kind is not OverrideKind.BUY or order.workers is None:
            continue
        recheck.append(order.ends_at)
        lacking = order.workers - done_of_order(order.id, own)
        if lacking <= 0:
            continue
        cause = f'order {order.id} of {order.author} lacks {lacking} of {order.workers} ("{order.reason}")'
        if isinstance(draft.supply, Gap) or draft.reason is Reason.CLOCK:
            return draft.says("orders", cause, recheck, order=order, cause=cause, missing=lacking)
        changes = {"order": order, "cause": cause, "missing": lacking, "add": lacking}
        return draft.says("orders", cause, recheck, reason=None, objection="", **changes)
    return draft.says("orders", "none", recheck)


def bounds(draft: Draft, facts: Facts) -> Draft:
    """``maximum`` and the lowest cap bound all paid workers, lost ones too."""
    if isinstance(draft.supply, Gap):
        return draft.says("bounds", "not known without a count of the workers")
    paid = draft.supply.paid
    most, reason, says = facts.policy.limits.maximum, Reason.MAXIMUM, f"maximum {facts.policy.limits.maximum}"
    recheck = []
    for order in facts.overrides:
        if order.kind is OverrideKind.CAP and order.workers is not None:
            recheck.append(order.ends_at)
            if order.workers < most:
                most, reason = order.workers, Reason.CAP
                says = f'cap {most} by {order.author} until {_at(order.ends_at, facts.now)} ("{order.reason}")'
    left = most - paid
    return draft.limits("bounds", reason, left, f"{says} leaves {max(0, left)}, {paid} are paid", recheck)


def per_action(draft: Draft, facts: Facts) -> Draft:
    """The most workers one purchase may add."""
    most = facts.policy.limits.per_action
    return draft.limits("per_action", Reason.MAXIMUM, most, f"per_action allows {most}")


def budgets(draft: Draft, facts: Facts) -> Draft:
    """The budget that leaves least bounds the purchase."""
    policy = facts.policy
    if not policy.limits.budgets:
        return draft.says("budgets", "none")
    rooms = room(policy.limits.budgets, policy.name, facts.history.purchases, terms(policy), facts.now)
    tightest = min(rooms, key=lambda left: left.workers)
    recheck = [left.changes_at for left in rooms]
    spent = [left.changes_at for left in rooms if not left.workers]
    if spent:  # while one of them leaves nothing, it does not matter what the others leave
        recheck = [] if None in spent else [max(filter(None, spent))]
    return draft.limits("budgets", Reason.BUDGET, tightest.workers, _budget_says(tightest), recheck)


def _budget_says(left: Room) -> str:
    budget = left.budget
    name = f' "{budget.shared}"' if budget.shared else ""
    limit = f"{number(budget.money)} money" if budget.money is not None else f"{budget.workers} workers"
    per = format_duration(budget.per) if budget.per else ""
    return f"budget{name} of {limit} per {per} leaves {left.workers}, {number(left.committed)} are committed"


def purchase_open(draft: Draft, facts: Facts) -> Draft:
    """No new purchase in a cluster while one is intended, being sent, of unknown outcome, or unknown altogether."""
    cluster = facts.policy.cluster_id
    unresolved = [p for p in facts.history.purchases if p.cluster_id == cluster and p.state in UNRESOLVED]
    if not unresolved:
        lacking = forgotten(facts, draft.order)
        if lacking is None:
            return draft.says("purchase_open", "none")
        return draft.objects("purchase_open", Reason.RESTORED, lacking.says, [lacking.until])
    for purchase in unresolved:
        if purchase.state is PurchaseState.UNKNOWN:
            text = f"the outcome of purchase {purchase.id} ({purchase.asked} workers) is unknown"
            text += f", see `autoscaler purchases show {purchase.id}`"
            return draft.objects("purchase_open", Reason.PURCHASE_UNKNOWN, text)._replace(unknown=text)
    first = unresolved[0]
    stage = "about to be sent" if first.state is PurchaseState.INTENDED else "being sent"
    return draft.objects("purchase_open", Reason.PURCHASE_OPEN, f"purchase {first.id} is {stage}")


def cluster(draft: Draft, facts: Facts) -> Draft:
    """The cluster is an edge cluster, has quota, is running, is healthy, and nobody else is scaling it out."""
    if isinstance(facts.capacity, Gap) or isinstance(draft.supply, Gap):
        return draft.says("cluster", "not known")
    about = facts.capacity.cluster
    if about.profile.lower() != "edge":
        return draft.objects("cluster", Reason.NOT_EDGE, f"the cluster's profile is {about.profile}, not Edge")
    if facts.capacity.foreign_tasks:
        text = f"somebody else is scaling out the cluster (task {', '.join(facts.capacity.foreign_tasks)})"
        return draft.objects("cluster", Reason.FOREIGN_SCALE_OUT, text)
    if about.state != "running":
        return draft.objects("cluster", Reason.CLUSTER_BUSY, f"the cluster is {about.state}")
    if draft.supply.unhealthy:
        text = f"{dropped_out(facts.capacity)} workers were lost at once, which is no shortage to buy for"
        return draft.objects("cluster", Reason.CLUSTER_UNHEALTHY, text)
    if about.node_quota is None:
        return draft.says("cluster", "running")
    left = about.node_quota - about.size
    text = f"node quota {about.node_quota} leaves {max(0, left)}, the cluster has {about.size} nodes"
    return draft.limits("cluster", Reason.QUOTA, left, text)


_REFUSED = {
    RefusalClass.POLICY: (Reason.REFUSED_POLICY, "until the policy changes"),
    RefusalClass.ACCOUNT: (Reason.REFUSED_ACCOUNT, "until the credential changes or `autoscaler purchases retry`"),
    RefusalClass.GONE: (Reason.REFUSED_GONE, "until the credential changes or `autoscaler purchases retry`"),
}


def refused(draft: Draft, facts: Facts) -> Draft:
    """The last refusal waits for a policy change, a credential change or a person."""
    standing = _standing_refusal(facts)
    if standing is None or standing.refusal is None:
        return draft.says("refused", "none")
    reason, until = _REFUSED[standing.refusal]
    text = f"purchase {standing.id} was refused ({standing.code}: {standing.message}), {until}"
    return draft.objects("refused", reason, text)


def _standing_refusal(facts: Facts) -> Purchase | None:
    def newest(purchases: list[Purchase]) -> Purchase | None:
        tried = [p for p in purchases if p.state is not PurchaseState.CANCELLED]
        return max(tried, key=lambda p: p.id) if tried else None

    gone = newest([p for p in facts.history.gone if (p.endpoint, p.credential) == (facts.endpoint, facts.credential)])
    if gone is not None:
        return gone
    in_cluster = newest([p for p in facts.history.purchases if p.cluster_id == facts.policy.cluster_id])
    if (
        in_cluster is not None
        and in_cluster.refusal is RefusalClass.ACCOUNT
        and in_cluster.credential == facts.credential
        and in_cluster.retried_at is None
    ):
        return in_cluster
    own = newest(list(facts.own_purchases()))
    if (
        own is not None
        and own.refusal is RefusalClass.POLICY
        and own.policy_version == facts.policy.version
        and own.retried_at is None
    ):
        return own
    return None


def backoff(draft: Draft, facts: Facts) -> Draft:
    """A growing pause after failed purchases; of an order, only its own failures count."""
    ended = [
        (_ended_at(purchase, facts.now), purchase.id, purchase)
        for purchase in draft.purchases
        if purchase.ended_at is not None
        and purchase.state is not PurchaseState.CANCELLED
        and (draft.order is None or purchase.order_id == draft.order.id)
    ]
    newest_first = [(at, purchase) for at, _, purchase in sorted(ended, key=lambda end: end[:2], reverse=True)]
    pauses = [*_pause_after_failures(newest_first), *_pause_while_busy(newest_first)]
    until, why = max(pauses, default=(facts.now, ""))
    if until <= facts.now:
        return draft.says("backoff", "none")
    return draft.objects("backoff", Reason.BACKOFF, f"backoff until {_at(until, facts.now)} {why}", [until])


def _ended_at(purchase: Purchase, now: datetime) -> datetime:
    """When a purchase ended; where a clock that was ahead told that, when it was sent, so that no pause is longer."""
    told = [at for at in (purchase.ended_at, purchase.sent_at, purchase.reserved_at) if at is not None]
    return next((at for at in told if at <= now), told[0])


def _pause_after_failures(newest_first: list[tuple[datetime, Purchase]]) -> Iterator[tuple[datetime, str]]:
    failures = []
    for at, purchase in newest_first:
        if purchase.state is PurchaseState.FULFILLED:
            break
        if purchase.refusal is RefusalClass.LATER or purchase.state in (PurchaseState.FAILED, PurchaseState.EXPIRED):
            failures.append((at, purchase))
    if not failures:
        return
    pause = BACKOFF_FIRST * 2 ** min(len(failures) - 1, 10)  # the exponent is bounded: a timedelta overflows
    ended_at, last = failures[0]
    why = f"after purchase {last.id} failed" if len(failures) == 1 else f"after {len(failures)} failed purchases"
    if last.message or last.code:
        why += f" ({last.message or last.code})"
    yield ended_at + min(pause, BACKOFF_MOST), why


def _pause_while_busy(newest_first: list[tuple[datetime, Purchase]]) -> Iterator[tuple[datetime, str]]:
    for ended_at, last in newest_first[:1]:
        if last.refusal is RefusalClass.BUSY:
            yield ended_at + BUSY_PAUSE, f"after the busy cluster refused purchase {last.id}"


def cooldown(draft: Draft, facts: Facts) -> Draft:
    """After a purchase is sent, none for this long; orders do not wait for it."""
    sent = [
        (purchase.sent_at, purchase.id)
        for purchase in draft.purchases
        if purchase.sent_at is not None and purchase.state not in NOTHING_BOUGHT
    ]
    if not sent:
        return draft.says("cooldown", "nothing was bought yet")
    sent_at, purchase_id = max(sent)
    until = sent_at + facts.policy.cooldown
    if until <= facts.now:
        return draft.says("cooldown", f"over since {_at(until, facts.now)}")
    text = f"cooldown until {_at(until, facts.now)} after purchase {purchase_id}"
    if sent_at > facts.now:
        text += f", sent at {_at(sent_at, facts.now)} by a clock that was ahead"
    if draft.order is not None:
        return draft.says("cooldown", f"{text}, which an order skips")
    return draft.objects("cooldown", Reason.COOLDOWN, text, [until])


def freeze(draft: Draft, facts: Facts) -> Draft:
    """A freeze stops everything. It speaks last, so that the sentence says what would have been bought."""
    freezes = [order for order in facts.overrides if order.kind is OverrideKind.FREEZE]
    if not freezes:
        return draft.says("freeze", "none")
    last = max(freezes, key=lambda order: order.ends_at)
    text = f'frozen by {last.author} until {_at(last.ends_at, facts.now)} ("{last.reason}")'
    return draft.objects("freeze", Reason.FREEZE, text, [last.ends_at])


RULES: tuple[tuple[str, Rule], ...] = (
    ("demand", demand),
    ("stabilization", stabilization),
    ("targets", targets),
    ("supply", supply),
    ("orders", orders),
    ("bounds", bounds),
    ("per_action", per_action),
    ("budgets", budgets),
    ("purchase_open", purchase_open),
    ("cluster", cluster),
    ("refused", refused),
    ("backoff", backoff),
    ("cooldown", cooldown),
    ("freeze", freeze),
)
# Up to `orders` they say what is missing; those after it forbid to buy it, and where nothing is missing they change
# neither the reason nor recheck_at.
WANTING, LIMITING = RULES[:5], RULES[5:]


def _at(instant: datetime, now: datetime) -> str:
    """An instant for people, in UTC: the time, and the day where it is another than that of ``now``."""
    return instant.strftime("%H:%M:%SZ" if instant.date() == now.date() else "%Y-%m-%d %H:%M:%SZ")
