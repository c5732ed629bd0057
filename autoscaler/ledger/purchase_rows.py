"""Purchases as rows: finding, reading, adding and changing them on an open connection."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    union_all,
    update,
)

from autoscaler.ledger.agreement import (
    COMMITTING,
    FATE,
    LATE,
    REMEMBERED,
    REMEMBERED_COUNT,
    changed,
    in_order,
    shared_budgets,
)
from autoscaler.ledger.errors import NotFound
from autoscaler.ledger.records import PurchaseEvent
from autoscaler.ledger.tables import arrivals, is_named, purchase_budgets, purchase_events, purchases, workers
from autoscaler.model import Arrival, Override, OverrideKind, Purchase, PurchaseState, RefusalClass
from autoscaler.policy import Policy
from autoscaler.purchase import NOTHING_BOUGHT, OPEN, UNRESOLVED

_P = purchases.c
_ELSEWHERE = ("id", "arrivals", "shared_budgets")  # given by the database, or kept in tables of their own


def of_histories(policies: Sequence[Policy], orders: Sequence[Override]) -> Select[int]:
    """Ids of at least the purchases that the policies' histories hold, in one query however many policies.

    ``orders`` are those in force.

    What is remembered only for a while is cut off here, by count, so that years of refusals are not read each time.
    """
    buys = [order for order in orders if order.kind is OverrideKind.BUY]
    return _of_histories().params(
        asked=sorted({(policy.name, policy.cluster_id) for policy in policies}),
        clusters=sorted({policy.cluster_id for policy in policies}),
        budgets=sorted(shared_budgets(policies)),
        orders=[order.id for order in buys],
        ordered=sorted(policy.name for policy in policies if any(order.names(policy.name) for order in buys)),
    )


@cache
def _of_histories() -> Select[int]:
    # Built once, and so compiled once: either takes longer than the database does.
    own = tuple_(_P.policy, _P.cluster_id).in_(bindparam("asked", expanding=True))
    in_cluster = _P.cluster_id.in_(bindparam("clusters", expanding=True))
    remembered = (
        select(_P.id, _nth(_P.policy, _P.cluster_id, _P.state, _P.imagined)).where(own, _in(REMEMBERED))
    ).subquery()
    accounts = (
        select(_P.id, _nth(_P.cluster_id, _P.credential, _P.imagined)).where(
            in_cluster, _P.refusal == RefusalClass.ACCOUNT
        )
    ).subquery()
    committed = (
        select(_P.id)
        .join(purchase_budgets, purchase_budgets.c.purchase_id == _P.id)
        # "Not in", lest SQLite finds these by their state, which nearly all purchases share, and not by their budget.
        .where(
            purchase_budgets.c.budget.in_(bindparam("budgets", expanding=True)),
            _P.state.not_in(sorted(NOTHING_BOUGHT)),
        )
    )
    clouds = (
        select(func.max(_P.id).label("id"))
        .where(_P.refusal == RefusalClass.GONE)
        .group_by(_P.endpoint, _P.credential)
        .order_by(func.max(_P.id).desc())
        .limit(REMEMBERED_COUNT)
    ).subquery()
    found = union_all(
        select(_P.id).where(own, _in(COMMITTING)),
        select(remembered.c.id).where(remembered.c.nth <= REMEMBERED_COUNT),
        select(_P.id).where(in_cluster, _in(UNRESOLVED)),
        select(accounts.c.id).where(accounts.c.nth == 1),
        committed,
        # By policy too, as there is an index for that.
        select(_P.id).where(
            _P.policy.in_(bindparam("ordered", expanding=True)),
            _P.order_id.in_(bindparam("orders", expanding=True)),
            _P.state.not_in(sorted(NOTHING_BOUGHT)),
        ),
        select(clouds.c.id),
    ).subquery()
    return select(found.c.id)


def _in(states: Collection[PurchaseState]) -> ColumnElement[bool]:
    return _P.state.in_(sorted(states))


def _nth(*partition: ColumnElement[Any]) -> ColumnElement[int]:
    return func.row_number().over(partition_by=partition, order_by=_P.id.desc()).label("nth")


def any_sent(connection: Connection) -> bool:
    """Whether any was sent that was not imagined."""
    sent = select(_P.id).where(_P.sent_at.is_not(None), _P.imagined.is_(False))
    return bool(connection.execute(select(exists(sent))).scalar_one())


def unsettled() -> Select[int]:
    """Ids of the purchases that may still change by themselves."""
    arrived = select(func.count()).where(arrivals.c.purchase_id == _P.id).scalar_subquery()
    late = _in(LATE) & (_P.asked > arrived)
    return select(_P.id).where(_in(OPEN) | late)


def newest(
    policy: str | None,
    states: Collection[PurchaseState] | None,
    orders: Collection[int] | None,
    before_id: int | None,
    limit: int | None,
) -> Select[int]:
    """Ids of one page of the list of purchases."""
    query = select(_P.id).order_by(_P.id.desc()).limit(limit)
    if policy is not None:
        query = query.where(is_named(_P.policy, policy))
    if states is not None:
        query = query.where(_in(states))
    if orders is not None:
        query = query.where(_P.order_id.in_(sorted(orders)))
    if before_id is not None:
        query = query.where(_P.id < before_id)
    return query


def load(connection: Connection, ids: Select[int]) -> tuple[Purchase, ...]:
    """The purchases whose ids a query finds, oldest first; one query a table."""
    rows = connection.execute(select(purchases).where(_P.id.in_(ids)).order_by(_P.id)).mappings().all()
    if not rows:
        return ()
    arrived: dict[int, list[Arrival]] = {row["id"]: [] for row in rows}
    budgets: dict[int, list[str]] = {row["id"]: [] for row in rows}
    # Written into the statement, because databases bound the number of parameters.
    loaded: BindParameter[int] = bindparam("loaded", list(arrived), expanding=True, literal_execute=True)
    seen = (workers.c.cluster_id == arrivals.c.cluster_id) & (workers.c.instance_id == arrivals.c.instance_id)
    arrival_rows = connection.execute(
        select(arrivals.c.purchase_id, arrivals.c.instance_id, arrivals.c.at, workers.c.gone_at)
        .outerjoin(workers, seen)
        .where(arrivals.c.purchase_id.in_(loaded))
    )
    for key, instance_id, at, gone_at in arrival_rows:
        arrived[key].append(Arrival(instance_id, at, gone_at))
    budget_rows = connection.execute(
        select(purchase_budgets.c.purchase_id, purchase_budgets.c.budget)
        .where(purchase_budgets.c.purchase_id.in_(loaded))
        .order_by(purchase_budgets.c.purchase_id, purchase_budgets.c.position)
    )
    for key, budget in budget_rows:
        budgets[key].append(budget)
    return tuple(
        Purchase(**row, arrivals=in_order(arrived[row["id"]]), shared_budgets=tuple(budgets[row["id"]])) for row in rows
    )


def find(connection: Connection, purchase_id: int) -> Purchase | None:
    """The purchase of that id, if there is one."""
    found = load(connection, select(_P.id).where(_P.id == purchase_id))
    return found[0] if found else None


def add(connection: Connection, purchase: Purchase, at: datetime, what: str) -> Purchase:
    """The purchase, written for the first time, with the id it got."""
    row = {field.name: getattr(purchase, field.name) for field in fields(Purchase) if field.name not in _ELSEWHERE}
    id = connection.execute(insert(purchases).values(row).returning(_P.id)).scalar_one()
    stored = replace(purchase, id=id, arrivals=in_order(purchase.arrivals))
    if purchase.shared_budgets:
        connection.execute(
            insert(purchase_budgets),
            [
                {"purchase_id": stored.id, "position": position, "budget": budget}
                for position, budget in enumerate(purchase.shared_budgets)
            ],
        )
    _arrive(connection, stored, stored.arrivals)
    _append(connection, stored.id, PurchaseEvent(at, None, stored.state, what, None))
    return stored


def change(
    connection: Connection,
    purchase_id: int,
    next: Callable[[Purchase], Purchase],
    at: datetime,
    what: str,
    author: str | None,
) -> Purchase:
    """The purchase as ``next`` made it; a row, its arrivals and an event are written if that is a difference."""
    before = find(connection, purchase_id)
    if before is None:
        raise NotFound(f"there is no purchase {purchase_id}")
    after = changed(before, next(before))
    if after == before:
        return before
    fate = {name: getattr(after, name) for name in FATE}
    connection.execute(update(purchases).where(_P.id == purchase_id).values(fate))
    known = {arrival.instance_id for arrival in before.arrivals}
    kept = {arrival.instance_id for arrival in after.arrivals}
    if known - kept:
        lost = arrivals.c.instance_id.in_(sorted(known - kept))
        connection.execute(delete(arrivals).where(arrivals.c.purchase_id == purchase_id, lost))
    _arrive(connection, after, [arrival for arrival in after.arrivals if arrival.instance_id not in known])
    _append(connection, purchase_id, PurchaseEvent(at, before.state, after.state, what, author))
    return find(connection, purchase_id) or after


def _arrive(connection: Connection, purchase: Purchase, new: Sequence[Arrival]) -> None:
    if new:
        connection.execute(
            insert(arrivals),
            [
                {
                    "cluster_id": purchase.cluster_id,
                    "instance_id": arrival.instance_id,
                    "purchase_id": purchase.id,
                    "at": arrival.at,
                }
                for arrival in new
            ],
        )


def _append(connection: Connection, purchase_id: int, event: PurchaseEvent) -> None:
    row = {field.name: getattr(event, field.name) for field in fields(PurchaseEvent)}
    connection.execute(insert(purchase_events).values(purchase_id=purchase_id, **row))


def events(connection: Connection, purchase_id: int) -> tuple[PurchaseEvent, ...]:
    """What became of a purchase, oldest first."""
    rows = connection.execute(
        select(*(purchase_events.c[field.name] for field in fields(PurchaseEvent)))
        .where(purchase_events.c.purchase_id == purchase_id)
        .order_by(purchase_events.c.id)
    )
    return tuple(PurchaseEvent(*row) for row in rows)


def tasks(connection: Connection, cluster_id: str) -> frozenset[str]:
    """Task ids of a cluster's purchases."""
    found = select(_P.task_id).where(_P.cluster_id == cluster_id, _P.task_id.is_not(None))
    return frozenset(connection.execute(found).scalars())
