"""A ledger that was restored from a copy, or begun anew: what it may have forgotten, and until when that matters.

A copy of yesterday lacks what was bought since, one begun anew lacks everything. What was bought long ago is among the
cluster's workers, and workers are supply whoever bought them. What matters is a purchase so young that its request may
still be carried out, or its workers not all be listed yet. In a copy there may be one that nobody has seen a sign of,
so nothing is bought until the youngest must have come; one begun anew is so by a person's word, which holds
unless the cluster shows a sign of such a purchase.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from autoscaler.facts import Facts
from autoscaler.model import Gap, Override, Restoral, Stranger, Task, TaskState, Worker
from autoscaler.policy import Policy
from autoscaler.purchase import TASK_LATEST, quiet_period

SHOWN = 5
"""So many strangers are named in a sentence; a person finds the others in the cloud's console."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Why nothing is bought although the ledger knows of no open purchase."""

    says: str
    until: datetime | None  # when time alone ends it; None: it does not


def strangers(
    policy: Policy,
    restoral: Restoral | None,
    looked_at: datetime,
    tasks: Iterable[Task],
    own_tasks: Collection[str],
    workers: Iterable[Worker],
) -> tuple[Stranger, ...]:
    """What a look shows that a forgotten purchase may have brought, and that may not be all of it yet.

    Tasks and workers that no purchase claims, not begun after the ledger was in use again: workers that were never
    ready, and tasks but those that are over and whose every worker is listed. ``own_tasks`` are those of the ledger's
    purchases in the cluster.
    """
    if restoral is None:
        return ()
    known = list(workers)
    listed = {worker.instance_id for worker in known}
    found = [
        Stranger(f"task {task.task_id}", task.created_at or restoral.at)
        for task in tasks
        if task.task_id not in own_tasks and not _accounted_for(task, listed)
    ]
    found += [
        Stranger(f"worker {worker.instance_id}", worker.created_at or worker.first_seen_at)
        for worker in known
        if worker.purchase_id is None
        and worker.ready_at is None
        and worker.instance_type == policy.worker.worker_instance_type
    ]
    quiet = quiet_period(policy.worker.timeout_mins)
    latest = restoral.at + TASK_LATEST
    return tuple(stranger for stranger in found if looked_at - quiet < stranger.began_at <= latest)


def forgotten(facts: Facts, order: Override | None) -> Forgotten | None:
    """Why nothing may be bought for what the ledger may have forgotten; None: that holds nothing back.

    ``order`` is the buy order that would be served.
    """
    restoral, capacity = facts.history.restoral, facts.capacity
    if restoral is None:
        return None
    what = what_was_done(restoral)
    # A new one by a person's word is so whatever clock dated it; one that was ahead makes every young task a stranger.
    ahead = restoral.begun and facts.now < restoral.at
    if isinstance(capacity, Gap) or (capacity.at < restoral.at and not ahead):
        says = f"{what} and the cluster was not looked at since (a look or `autoscaler ledger reviewed` ends that)"
        return Forgotten(says, None)
    quiet = quiet_period(facts.policy.worker.timeout_mins)
    ends = [stranger.began_at + quiet for stranger in capacity.strangers]
    if not restoral.begun:
        ends.append(restoral.at + quiet)
    until = max(ends, default=facts.now)
    if until > facts.now:
        shown = [stranger.name for stranger in capacity.strangers[:SHOWN]]
        more = len(capacity.strangers) - len(shown)
        names = ", ".join([*shown, *([f"{more} more"] if more else [])])
        strange = f", it does not know {names}" if names else ""
        says = f"{what} and may lack a purchase until {_at(until)} or `autoscaler ledger reviewed`{strange}"
        return Forgotten(says, until)
    if order is not None and order.starts_at < restoral.at and not restoral.begun:
        says = f"{what} and may lack what was bought for order {order.id}: end it, or say `autoscaler ledger reviewed`"
        return Forgotten(says, None)
    return None


def what_was_done(restoral: Restoral) -> str:
    """How the ledger came to lack something: with it every ``Forgotten`` begins."""
    if restoral.begun:
        return f"the ledger was begun at {_at(restoral.at)}"
    copy = f" from a copy of {_at(restoral.copied_at)}" if restoral.copied_at is not None else ""
    return f"the ledger was restored at {_at(restoral.at)}{copy}"


def _accounted_for(task: Task, listed: Collection[str]) -> bool:
    named = (*task.succeeded, *task.pending)
    return task.state is not TaskState.RUNNING and bool(named) and all(instance in listed for instance in named)


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%SZ}"
