"""Purchases: how one ScaleOutCluster call moves from intent to fate.

::

    intended ─ sending ─┬─ accepted ─┬─ fulfilled        all arrived
       │                │            ├─ failed           the task says so
     cancelled          │            └─ expired          provision_timeout, two looks after it
                        ├─ rejected                      surely nothing bought
                        └─ unknown ──┬─ accepted         evidence, or a person: bought
                                     └─ not_bought       a person, or the policy's own wish

Every transition is a function here from a purchase and a piece of evidence to the purchase as it then is. None of them
ever makes a purchase smaller by silence: absence is no proof over an API that lists late and forgets in between.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from autoscaler.model import (
    Accepted,
    Answer,
    Arrival,
    Purchase,
    PurchaseState,
    RefusalClass,
    Refused,
    Task,
    TaskState,
    Terms,
    Unclear,
    Worker,
)
from autoscaler.policy import Policy

UNRESOLVED = frozenset({PurchaseState.INTENDED, PurchaseState.SENDING, PurchaseState.UNKNOWN})
OPEN = UNRESOLVED | {PurchaseState.ACCEPTED}
NOTHING_BOUGHT = frozenset({PurchaseState.CANCELLED, PurchaseState.REJECTED, PurchaseState.NOT_BOUGHT})

_FOR_A_PERSON = frozenset({RefusalClass.POLICY, RefusalClass.ACCOUNT, RefusalClass.GONE})

# The cloud refuses a request whose date is older (API page, "Purchase"): no later can an unsent one still buy.
SIGNATURE_LIFETIME = timedelta(minutes=15)
# What clocks and listings may be off on top of that before a person may say "not bought".
QUIET_MARGIN = timedelta(minutes=5)
# A task created by the cloud's clock in [sent − 60 s, sent + 5 min] may be ours.
TASK_EARLIEST = timedelta(seconds=60)
TASK_LATEST = timedelta(minutes=5)
# Two looks are two only when they are this far apart: the same cached list seen twice is one.
LOOKS_APART = timedelta(seconds=30)


class Raced(Exception):
    """Another writer was first; nothing was written, and what was read before is no longer so."""


class CannotSettle(ValueError):
    """What a person says of a purchase cannot be so; the text says why."""


class TooEarly(CannotSettle):
    """A person may not yet say that nothing was bought, because it still might be."""

    def __init__(self, purchase_id: int, earliest: datetime, now: datetime) -> None:
        """``earliest``: the first instant at which it may be said; ``now`` by the clock that counts."""
        super().__init__(
            f"purchase {purchase_id} may still be carried out: that nothing was bought may be said from "
            f"{earliest:%Y-%m-%d %H:%M:%SZ} on, and it is {now:%Y-%m-%d %H:%M:%SZ} now"
        )
        self.earliest = earliest


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one whole look at a purchase's cluster shows."""

    at: datetime
    workers: tuple[Worker, ...]  # all the cluster's, as all looks together know them
    task: Task | None  # the purchase's own task; None: it has none, or the cloud does not know it (yet)
    strangers: tuple[Task, ...]  # the cluster's scale-out tasks that no purchase claims
    claimed: frozenset[str]  # instance ids that other purchases brought


def terms(policy: Policy) -> Terms:
    """The terms on which a policy buys now."""
    worker = policy.worker
    return Terms(
        instance_type=worker.worker_instance_type,
        ens_region_id=worker.ens_region_id,
        period=worker.worker_period,
        auto_renew=worker.worker_auto_renew,
        auto_renew_period=worker.worker_auto_renew_period,
        timeout_mins=worker.timeout_mins,
        provision_timeout=policy.provision_timeout,
        assumed_join=policy.assumed_join,
        settle_unknown=policy.settle_unknown,
        price=policy.price_per_worker_month,
        currency=policy.currency,
    )


def answered(purchase: Purchase, answer: Answer, now: datetime) -> Purchase:
    """Record what the cloud answered. A fact about one's own purchase is taken whatever was assumed meanwhile."""
    guessed = purchase.state is PurchaseState.ACCEPTED and purchase.adopted
    if purchase.state not in (PurchaseState.SENDING, PurchaseState.UNKNOWN, PurchaseState.NOT_BOUGHT) and not guessed:
        return purchase
    if guessed and isinstance(answer, Unclear):
        return purchase
    heard = replace(purchase, answered_at=now, request_id=answer.request_id or purchase.request_id)
    match answer:
        case Accepted(task_id=task_id):
            return replace(
                heard,
                state=PurchaseState.ACCEPTED,
                task_id=task_id,
                adopted=False,
                failed=0,
                message=None,
                ended_at=None,
            )
        case Refused():
            return replace(
                heard,
                state=PurchaseState.REJECTED,
                refusal=answer.refusal,
                code=answer.code,
                message=answer.message,
                task_id=None,
                arrivals=(),
                failed=0,
                adopted=False,
                ended_at=now,
            )
        case Unclear(detail=detail):
            unknown = PurchaseState.UNKNOWN if purchase.state is PurchaseState.SENDING else purchase.state
            return replace(heard, state=unknown, message=detail)


def abandoned(purchase: Purchase, now: datetime) -> Purchase:
    """The process that held it is gone: an intended one was surely not sent, of a sending one nobody knows."""
    match purchase.state:
        case PurchaseState.INTENDED:
            return replace(purchase, state=PurchaseState.CANCELLED, ended_at=now, message="its process ended unsent")
        case PurchaseState.SENDING:
            return replace(purchase, state=PurchaseState.UNKNOWN, message="its process ended before the answer")
        case _:
            return purchase


def copied(purchase: Purchase) -> Purchase:
    """It stands in a copy of the ledger: where it was about to be sent, nobody knows whether it was sent since."""
    if purchase.state is not PurchaseState.INTENDED or purchase.imagined:
        return purchase
    return replace(
        purchase, state=PurchaseState.UNKNOWN, message="the ledger is a copy made as it was about to be sent"
    )


def cancelled(purchase: Purchase, now: datetime, why: str) -> Purchase:
    """An intended purchase that will not be sent after all."""
    if purchase.state is not PurchaseState.INTENDED:
        return purchase
    return replace(purchase, state=PurchaseState.CANCELLED, ended_at=now, message=why)


def next_state(purchase: Purchase, evidence: Evidence, now: datetime) -> Purchase:
    """Move a purchase on by what a look at its cluster shows. The look must be whole and its clock trusted.

    Of several purchases of a cluster the open ones come first: a latecomer is only a worker that none of them lacks.
    """
    if purchase.imagined:
        return purchase
    match purchase.state:
        case PurchaseState.UNKNOWN:
            return _adopt(purchase, evidence, now)
        case PurchaseState.ACCEPTED:
            return _end(_follow_task(_attach(purchase, evidence), evidence, now), evidence, now)
        case PurchaseState.FAILED | PurchaseState.EXPIRED:
            return _attach(purchase, evidence)
        case _:
            return purchase


def arrive_imagined(purchase: Purchase, now: datetime) -> Purchase:
    """A dry run's purchase arrives whole, ``assumed_join`` after it was sent."""
    if not purchase.imagined or purchase.state is not PurchaseState.ACCEPTED or purchase.sent_at is None:
        return purchase
    arrived_at = purchase.sent_at + purchase.terms.assumed_join
    if now < arrived_at:
        return purchase
    arrivals = tuple(Arrival(f"imagined-{purchase.id}-{n}", arrived_at) for n in range(1, purchase.asked + 1))
    return replace(purchase, state=PurchaseState.FULFILLED, arrivals=arrivals, ended_at=arrived_at)


def settled_bought(purchase: Purchase, bought: int, now: datetime) -> Purchase:
    """A person says that ``bought`` workers of an unknown purchase were bought (1 to asked)."""
    if purchase.state is not PurchaseState.UNKNOWN:
        raise CannotSettle(f"purchase {purchase.id} is {purchase.state}, not unknown: there is nothing to settle")
    if not 1 <= bought <= purchase.asked:
        raise CannotSettle(f"bought must be 1 to {purchase.asked}, the number asked for; 0 is --not-bought")
    return replace(
        purchase, state=PurchaseState.ACCEPTED, adopted=True, failed=purchase.asked - bought, answered_at=now
    )


def settled_not_bought(purchase: Purchase, now: datetime) -> Purchase:
    """A person, or the policy's own wish, says that nothing was bought. Raises TooEarly while it still might be."""
    if purchase.state is not PurchaseState.UNKNOWN:
        raise CannotSettle(f"purchase {purchase.id} is {purchase.state}, not unknown: there is nothing to settle")
    earliest = quiet_at(purchase)
    if now < earliest:
        raise TooEarly(purchase.id, earliest, now)
    return replace(purchase, state=PurchaseState.NOT_BOUGHT, ended_at=now)


def retried(purchase: Purchase, now: datetime) -> Purchase:
    """A person says that what it was refused for is mended: its refusal holds nothing back any more."""
    if purchase.refusal not in _FOR_A_PERSON or purchase.retried_at is not None:
        raise CannotSettle(f"purchase {purchase.id} is {purchase.state}, and no refusal of it waits for a person")
    return replace(purchase, retried_at=now)


def quiet_at(purchase: Purchase) -> datetime:
    """The first instant at which absence of evidence may be taken for "not bought", by a person."""
    return purchase.signed_at + quiet_period(purchase.terms.timeout_mins)


def quiet_period(timeout_mins: int) -> timedelta:
    """How long after it was signed a purchase may still be carried out, or its workers be on their way."""
    return SIGNATURE_LIFETIME + timedelta(minutes=timeout_mins) + QUIET_MARGIN


def moves_at(purchase: Purchase) -> Iterator[datetime]:
    """The instants from which on time alone, with a look that shows nothing new, may move an open purchase on."""
    match purchase.state:
        case PurchaseState.UNKNOWN:
            yield (purchase.sent_at or purchase.signed_at) + TASK_LATEST
            yield quiet_at(purchase)
        case PurchaseState.ACCEPTED if purchase.overdue_at is None:
            yield _timeout_at(purchase)
        case PurchaseState.ACCEPTED:
            assert purchase.overdue_at is not None
            yield purchase.overdue_at + LOOKS_APART


def _adopt(purchase: Purchase, evidence: Evidence, now: datetime) -> Purchase:
    """Settle an unknown purchase by exactly one task, or by its workers; anything foreign leaves it unknown.

    Not before the last instant at which its own task may have begun: until then a colleague's may only be the first to
    show. And what is found must be as many as were asked for: of a colleague's three, two of five would be expected
    still, while our own five come.
    """
    sent_at = purchase.sent_at or purchase.signed_at
    if evidence.at < sent_at + TASK_LATEST:
        return purchase
    since = [
        task
        for task in evidence.strangers
        if task.task_id not in purchase.tasks_before
        and (task.created_at is None or task.created_at >= sent_at - TASK_EARLIEST)
    ]
    ours = [task for task in since if task.created_at is not None and task.created_at <= sent_at + TASK_LATEST]
    named = {i for task in ours for i in (*task.succeeded, *task.failed, *task.pending)}
    if len(since) == 1 and ours and len(named) in (0, purchase.asked):
        return replace(
            purchase, state=PurchaseState.ACCEPTED, adopted=True, task_id=ours[0].task_id, message="found by its task"
        )
    if not since:
        new = tuple(_unclaimed(purchase, evidence))
        found = [worker for worker in new if worker.created_at is not None]
        if len(found) == len(new) == purchase.asked:
            arrivals = tuple(Arrival(worker.instance_id, worker.first_seen_at) for worker in found)
            return replace(
                purchase, state=PurchaseState.ACCEPTED, adopted=True, arrivals=arrivals, message="found by its workers"
            )
        quiet = min(evidence.at, now) >= quiet_at(purchase)
        if not new and quiet and purchase.terms.settle_unknown == "after_quiet_period":
            return settled_not_bought(purchase, now)
    return purchase


def _attach(purchase: Purchase, evidence: Evidence) -> Purchase:
    """Attach workers that arrived: those its task names, else new ones nobody claims, no more than are outstanding."""
    task = evidence.task
    named = frozenset((*task.succeeded, *task.pending, *task.failed)) if task else frozenset()
    known = {worker.instance_id: worker for worker in evidence.workers}
    kept = tuple(arrival for arrival in purchase.arrivals if not named or arrival.instance_id in named)
    # A worker its task gave up may join all the same, an hour later.
    joined = tuple(i for i in purchase.failures if i in known and known[i].ready_at is not None)
    failures = tuple(i for i in purchase.failures if i not in joined)
    have = {arrival.instance_id for arrival in kept} | set(failures)
    candidates = [known[i] for i in joined]
    if named:
        candidates += [known[i] for i in sorted(named) if i in known and i not in have and i not in evidence.claimed]
    else:
        candidates += [worker for worker in _unclaimed(purchase, evidence) if worker.instance_id not in have]
    failed = given_up = max(0, purchase.failed - len(joined))
    if purchase.state is PurchaseState.FAILED:
        # Its task said that none more would come, not always which: those that did join show it wrong.
        given_up = len(failures)
        candidates = [worker for worker in candidates if worker.ready_at is not None]
    room = max(0, purchase.asked - given_up - len(kept))
    new = {worker.instance_id: Arrival(worker.instance_id, worker.first_seen_at) for worker in candidates}
    arrivals = (*kept, *list(new.values())[:room])
    failed = min(failed, purchase.asked - len(arrivals))
    return replace(purchase, arrivals=arrivals, failures=failures, failed=failed)


def _unclaimed(purchase: Purchase, evidence: Evidence) -> Iterator[Worker]:
    """Workers of the type that appeared after the send and that no other purchase brought, oldest first."""
    sent_at = purchase.sent_at or purchase.signed_at
    mine = {arrival.instance_id for arrival in purchase.arrivals}
    for worker in sorted(evidence.workers, key=lambda worker: (worker.first_seen_at, worker.instance_id)):
        if (
            worker.instance_type == purchase.terms.instance_type
            and worker.first_seen_at > sent_at
            and (worker.created_at is None or worker.created_at >= sent_at - TASK_EARLIEST)
            and worker.instance_id not in evidence.claimed
            and worker.instance_id not in mine
        ):
            yield worker


def _follow_task(purchase: Purchase, evidence: Evidence, now: datetime) -> Purchase:
    task = evidence.task
    if task is None or purchase.adopted:
        return purchase
    ready = {worker.instance_id for worker in evidence.workers if worker.ready_at is not None} | set(task.succeeded)
    if task.state is TaskState.FAILED:
        arrivals = tuple(arrival for arrival in purchase.arrivals if arrival.instance_id in ready)
        lost = {arrival.instance_id for arrival in purchase.arrivals} - ready
        # Those it brought all the same may not be listed yet: they are waited for, else they would be bought again.
        unlisted = set(task.succeeded) - {arrival.instance_id for arrival in arrivals}
        failed = max(0, purchase.asked - len(arrivals) - len(unlisted))
        known = replace(
            purchase, arrivals=arrivals, failed=failed, failures=tuple(sorted(lost | set(task.failed) - ready))
        )
        if unlisted and evidence.at < _timeout_at(purchase):
            return known
        return replace(
            known, state=PurchaseState.FAILED, failed=purchase.asked - len(arrivals), message=task.error, ended_at=now
        )
    given_up = tuple(sorted(set(task.failed) - ready))
    if task.state is TaskState.SUCCESS and given_up:
        arrivals = tuple(arrival for arrival in purchase.arrivals if arrival.instance_id not in given_up)
        failed = min(max(purchase.failed, len(given_up)), purchase.asked - len(arrivals))
        return replace(purchase, arrivals=arrivals, failed=failed, failures=given_up)
    return purchase


def _timeout_at(purchase: Purchase) -> datetime:
    return (purchase.sent_at or purchase.signed_at) + purchase.terms.provision_timeout


def _end(purchase: Purchase, evidence: Evidence, now: datetime) -> Purchase:
    if purchase.state is not PurchaseState.ACCEPTED:
        return purchase
    if purchase.outstanding == 0:
        ready = {worker.instance_id for worker in evidence.workers if worker.ready_at is not None}
        done = evidence.task is not None and evidence.task.state is TaskState.SUCCESS
        if done or all(arrival.instance_id in ready for arrival in purchase.arrivals):
            whole = purchase.failed == 0 or purchase.adopted
            state = PurchaseState.FULFILLED if whole else PurchaseState.FAILED
            return replace(purchase, state=state, ended_at=now)
    if evidence.at < _timeout_at(purchase):
        return replace(purchase, overdue_at=None)  # a look was said to be after it by a clock that was ahead
    if purchase.overdue_at is None or purchase.overdue_at > evidence.at:
        return replace(purchase, overdue_at=evidence.at)
    if evidence.at >= purchase.overdue_at + LOOKS_APART:
        return replace(purchase, state=PurchaseState.EXPIRED, ended_at=now, message="provision_timeout passed")
    return purchase


def committed(purchase: Purchase) -> int:
    """Workers that count in budgets: all asked for, unless surely nothing was bought.

    A task's word that some failed frees nothing: they have been seen to join an hour later.
    """
    return 0 if purchase.state in NOTHING_BOUGHT else purchase.asked


def done_of_order(order_id: int, purchases: Iterable[Purchase]) -> int:
    """Workers of a buy order that its purchases brought or may still bring; unknown ones count."""
    done = 0
    for purchase in purchases:
        if purchase.order_id != order_id or purchase.state in NOTHING_BOUGHT:
            continue
        done += purchase.arrived if purchase.state is PurchaseState.FAILED else purchase.asked - purchase.failed
    return done
