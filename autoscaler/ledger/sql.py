"""The ledger in a database: SQLite for one daemon, PostgreSQL for replicas.

Every method is one transaction; what is read and what is written is in the ``…_rows`` modules.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from autoscaler.decision import Decision, Evaluation
from autoscaler.ledger import cluster_rows, evaluation_rows, mark_rows, override_rows, purchase_rows
from autoscaler.ledger.agreement import FOUND_A_COPY, assemble, is_copy, why_not_claim, why_not_send
from autoscaler.ledger.database import Database
from autoscaler.ledger.errors import NotFound
from autoscaler.ledger.memory import MemoryLedger
from autoscaler.ledger.migrate import require_schema, upgrade
from autoscaler.ledger.records import Lease, Mark, MarkName, PurchaseEvent, Sample, StoredDecision
from autoscaler.model import (
    CheckReading,
    History,
    Inventory,
    Override,
    OverrideKind,
    PaidWorker,
    Purchase,
    PurchaseState,
    Restoral,
    Worker,
)
from autoscaler.override import OrderKey
from autoscaler.policy import Policy


def open_ledger(url: str, *, clock: Callable[[], datetime]) -> "SqlLedger":
    """The ledger at ``url``, created or brought to the newest schema first.

    ``url`` is SQLAlchemy's: ``sqlite:///relative``, ``sqlite:////absolute``, ``postgresql+psycopg://user@host/name``.
    ``clock`` rules SQLite's leases; PostgreSQL uses its own. LedgerUnavailable, LedgerTooNew.
    """
    database = Database(url, clock)
    try:
        upgrade(database)
    except BaseException:
        database.close()
        raise
    return SqlLedger(database)


class SqlLedger:
    """Decisions, purchases, orders and workers in tables.

    Any method may raise LedgerUnavailable. Instants given are aware and UTC.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A write transaction in the schema that this program is written for: another may have come meanwhile."""
        with self._database.writing() as connection:
            require_schema(connection)
            yield connection

    # What decisions are computed from

    def histories(self, policies: Sequence[Policy], now: datetime) -> Mapping[str, History]:
        """The history of each policy, by name; one query a table however many there are."""
        if not policies:
            return {}
        with self._database.reading() as connection:
            orders = override_rows.active(connection, now)
            purchases = purchase_rows.load(connection, purchase_rows.of_histories(policies, orders))
            runs = evaluation_rows.runs(connection, [policy.name for policy in policies])
            restoral = mark_rows.restoral(connection, now)
        return assemble(policies, purchases, runs, restoral, orders)

    def overrides(self, now: datetime) -> tuple[Override, ...]:
        """The orders that hold at ``now``, by id: all that are recorded, and neither over nor ended."""
        with self._database.reading() as connection:
            return override_rows.active(connection, now)

    def add_override(
        self,
        kind: OverrideKind,
        policies: Sequence[str],
        workers: int | None,
        author: str,
        reason: str,
        starts_at: datetime,
        ends_at: datetime,
        key: OrderKey | None = None,
    ) -> Override:
        """Record an order of a person; ``policies`` are names or globs.

        What its author ordered by the same ``key`` within 24 h is returned instead. KeyReused if that is another order.
        """
        order = Override(0, kind, tuple(policies), workers, author, reason, starts_at, ends_at)
        with self._writing() as connection:
            return override_rows.add(connection, order, key)

    def override(self, id: int) -> Override:
        """The order of that id. NotFound."""
        with self._database.reading() as connection:
            return override_rows.find(connection, id)

    def override_history(self, *, before_id: int | None = None, limit: int = 50) -> tuple[Override, ...]:
        """One page of all orders ever given, newest first."""
        with self._database.reading() as connection:
            return override_rows.newest(connection, before_id, limit)

    def end_override(self, id: int, author: str, reason: str, at: datetime) -> Override:
        """End an order early; the first end of an order wins. NotFound."""
        with self._writing() as connection:
            return override_rows.end(connection, id, author, reason, at)

    # Workers

    def record_look(self, inventory: Inventory) -> tuple[Worker, ...]:
        """Merge one look at a cluster into what is known of its workers, and return those that are not gone.

        A look that is not newer than the newest one recorded changes nothing, unless a clock that was ahead made that.
        """
        with self._writing() as connection:
            cluster_rows.record_look(self._database, connection, inventory)
            return cluster_rows.known_workers(connection, inventory.cluster_id)

    def workers(self, cluster_id: str) -> tuple[Worker, ...]:
        """The workers of a cluster that are not gone, as all looks together know them, by instance id."""
        with self._database.reading() as connection:
            return cluster_rows.known_workers(connection, cluster_id)

    def paid_workers(self, expiring_before: datetime) -> tuple[PaidWorker, ...]:
        """The workers of all clusters that are not gone, without those that the node list says expire later."""
        with self._database.reading() as connection:
            return cluster_rows.paid_workers(connection, expiring_before)

    # Evaluations

    def record(self, evaluations: Sequence[Evaluation]) -> tuple[bool, ...]:
        """Record evaluations, all or none, and say of each whether its decision was news and was appended."""
        if not evaluations:
            return ()
        with self._writing() as connection:
            return evaluation_rows.record(self._database, connection, evaluations)

    def decisions(
        self, *, policy: str | None = None, before_id: int | None = None, limit: int = 50
    ) -> tuple[StoredDecision, ...]:
        """One page of the decisions that were news, newest first."""
        with self._database.reading() as connection:
            return evaluation_rows.stored(connection, policy, before_id, limit)

    def evaluation(self, decision_id: int) -> Evaluation | None:
        """A stored decision with all it rested on; the policy as it was then."""
        with self._database.reading() as connection:
            return evaluation_rows.evaluation(connection, decision_id)

    def decision_of(self, purchase_id: int) -> int | None:
        """The number of the decision that a purchase was made by; None: there is no such purchase."""
        with self._database.reading() as connection:
            return evaluation_rows.of_purchase(connection, purchase_id)

    def latest(self) -> Mapping[str, Decision]:
        """The latest decision of every policy that was ever evaluated, by name."""
        with self._database.reading() as connection:
            return evaluation_rows.current(connection)

    def readings(self) -> Mapping[str, tuple[CheckReading, ...]]:
        """What the checks of every policy read at its latest evaluation, by the policy's name."""
        with self._database.reading() as connection:
            return evaluation_rows.readings(connection)

    def samples(self, policy: str, since: datetime) -> tuple[Sample, ...]:
        """The minutes of a policy from ``since`` on, oldest first; none older than 48 h."""
        with self._database.reading() as connection:
            return evaluation_rows.sampled(connection, policy, since)

    # Purchases

    def reserve(
        self,
        policy: Policy,
        now: datetime,
        holder: str,
        propose: Callable[[History, tuple[Override, ...]], tuple[Evaluation, Purchase | None]],
    ) -> tuple[Evaluation, Purchase | None]:
        """Decide and intend in one transaction that no other writer comes between.

        ``propose`` gets the policy's history and the active orders as they are now; its evaluation is recorded, and
        its purchase, if any, gets its id. Raced if the cluster has an open purchase already; LedgerUnavailable also
        where the commit was not confirmed: nothing may then be sent.
        """
        with self._writing() as connection:
            orders = override_rows.active(connection, now)
            purchases = purchase_rows.load(connection, purchase_rows.of_histories([policy], orders))
            runs = evaluation_rows.runs(connection, [policy.name])
            history = assemble([policy], purchases, runs, mark_rows.restoral(connection, now), orders)[policy.name]
            evaluation, purchase = propose(history, orders)
            if purchase is not None:
                purchase = purchase_rows.add(connection, purchase, now, f"reserved by {holder}")
            bought_by = None if purchase is None else purchase.id
            evaluation_rows.record(self._database, connection, [evaluation], bought_by)
        return evaluation, purchase

    def begin_sending(self, reserved: Purchase, holder: str, now: datetime) -> str | None:
        """Claim a purchase for sending, as it was reserved: None if it may be sent, else why not, in one clause.

        An intended purchase that may not be sent is cancelled by that. NotFound.
        """
        with self._writing() as connection:
            purchase = purchase_rows.find(connection, reserved.id)
            if purchase is None:
                raise NotFound(f"there is no purchase {reserved.id}")
            if (why_not := why_not_claim(purchase, reserved)) is not None:
                return why_not
            leased = cluster_rows.is_held(self._database, connection, purchase.cluster_id, holder)
            orders = override_rows.active(connection, now)
            restoral = mark_rows.restoral(connection, now)
            why_not = why_not_send(purchase, leased=leased, overrides=orders, restoral=restoral, now=now)
            if why_not is None:
                after = replace(purchase, state=PurchaseState.SENDING, sent_at=now)
            else:
                after = replace(purchase, state=PurchaseState.CANCELLED, ended_at=now, message=why_not)
            what = why_not or f"sent by {holder}"
            purchase_rows.change(connection, purchase.id, lambda _: after, now, what, None)
        return why_not

    def change(
        self,
        purchase_id: int,
        next: Callable[[Purchase], Purchase],
        at: datetime,
        what: str,
        author: str | None = None,
    ) -> Purchase:
        """Move a purchase on to what ``next`` makes of it, with an event saying what happened and by whom.

        Where ``next`` changes nothing, nothing is written. NotFound; Raced if a worker is another purchase's already;
        ValueError if ``next`` changes what was fixed at the reservation.
        """
        with self._writing() as connection:
            return purchase_rows.change(connection, purchase_id, next, at, what, author)

    def purchase(self, id: int) -> Purchase | None:
        """The purchase of that id, if there is one."""
        with self._database.reading() as connection:
            return purchase_rows.find(connection, id)

    def purchases(
        self,
        *,
        policy: str | None = None,
        states: Collection[PurchaseState] | None = None,
        orders: Collection[int] | None = None,
        before_id: int | None = None,
        limit: int | None = 50,
    ) -> tuple[Purchase, ...]:
        """One page of the purchases, newest first; ``orders``: those that serve these orders."""
        with self._database.reading() as connection:
            ids = purchase_rows.newest(policy, states, orders, before_id, limit)
            return purchase_rows.load(connection, ids)[::-1]

    def purchase_events(self, id: int) -> tuple[PurchaseEvent, ...]:
        """What became of a purchase, oldest first."""
        with self._database.reading() as connection:
            return purchase_rows.events(connection, id)

    def unsettled(self) -> tuple[Purchase, ...]:
        """Purchases that are still open, and ended ones of which workers may still turn up; oldest first."""
        with self._database.reading() as connection:
            return purchase_rows.load(connection, purchase_rows.unsettled())

    def own_tasks(self, cluster_id: str) -> frozenset[str]:
        """Task ids of the purchases of a cluster."""
        with self._database.reading() as connection:
            return purchase_rows.tasks(connection, cluster_id)

    # Leases

    def lease(
        self, holder: str, clusters: Collection[str], ttl: timedelta, keep: Collection[str] = ()
    ) -> frozenset[str]:
        """Announce ``holder`` for ``ttl``, and return the ``clusters`` it holds for that long: its even share of them.

        Those that ask for the same clusters share them, none holding two more than another once each has asked twice.
        Of what one has, one gives up the excess, but none of ``keep``, and what one no longer asks for.
        """
        with self._writing() as connection:
            return cluster_rows.take_leases(self._database, connection, holder, clusters, ttl, keep)

    def release(self, holder: str) -> None:
        """Give back every lease of the holder."""
        with self._writing() as connection:
            cluster_rows.release_leases(connection, holder)

    def holders(self) -> tuple[Lease, ...]:
        """The leases that hold now, by cluster."""
        with self._database.reading() as connection:
            return cluster_rows.held_leases(self._database, connection)

    # The whole

    def mark(self, name: MarkName, at: datetime, reason: str, author: str | None = None) -> None:
        """Record what happened to the ledger. A restored one's purchases that were about to be sent become unknown.

        And its orders to buy that say they were given later are ended: they cannot be told from new ones.
        """
        with self._writing() as connection:
            mark_rows.add(connection, Mark(name, at, reason, author))

    def marks(self) -> tuple[Mark, ...]:
        """What happened to the ledger, oldest first."""
        with self._database.reading() as connection:
            return mark_rows.load(connection)

    def restoral(self, now: datetime) -> Restoral | None:
        """When it was last put into use without rows that it may have had, if nobody has reviewed it since.

        A copy that no daemon has taken up yet is taken to be put into use ``now``.
        """
        with self._database.reading() as connection:
            return mark_rows.restoral(connection, now)

    def take_up(self, now: datetime) -> Restoral | None:
        """Begin to work on this ledger, which restores it if it is a copy, and bears the mark of one.

        Its restoral, if that is news. LedgerUnavailable by a clock that is behind the time of the copy.
        """
        with self._database.reading() as connection:
            if not is_copy(mark_rows.load(connection), now):
                return None
        with self._writing() as connection:
            if is_copy(mark_rows.load(connection), now):
                mark_rows.add(connection, Mark(MarkName.RESTORED, now, FOUND_A_COPY, None))
            return mark_rows.restoral(connection, now)

    def now(self) -> datetime:
        """The time by the clock that rules leases: the database's where it has one, else this process's."""
        with self._database.reading() as connection:
            return self._database.now(connection)

    def in_use(self) -> bool:
        """Whether it was used for live policies: it has a mark, or a purchase that was sent and not imagined.

        Decisions do not count: dry runs make them too, and so would a live daemon beneath which it was begun anew.
        """
        with self._database.reading() as connection:
            return bool(mark_rows.load(connection)) or purchase_rows.any_sent(connection)

    def prune(self, now: datetime, keep: timedelta) -> None:
        """Drop decisions older than ``keep`` that bought nothing, and samples past 48 h. All else is kept for ever."""
        with self._writing() as connection:
            evaluation_rows.prune(connection, now, keep)

    def concerns(self) -> tuple[str, ...]:
        """What is doubtful about the way its database keeps what it has confirmed; one clause each."""
        return self._database.concerns()

    def close(self) -> None:
        """Close the connections."""
        self._database.close()


Ledger = SqlLedger | MemoryLedger
