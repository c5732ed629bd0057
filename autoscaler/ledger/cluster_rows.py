"""What is known of clusters as rows: their workers as all looks know them, and who works on them."""

from collections.abc import Collection
from dataclasses import asdict, fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, delete, or_, select, update

from autoscaler.ledger.agreement import is_stale
from autoscaler.ledger.database import Database
from autoscaler.ledger.records import Lease
from autoscaler.ledger.shares import Grant, Replica, dealt, fingerprint
from autoscaler.ledger.sightings import Sighting, merge
from autoscaler.ledger.tables import arrivals, leases, looks, purchases, replicas, workers
from autoscaler.model import Inventory, PaidWorker, Worker

_SIGHTING = tuple(workers.c[field.name] for field in fields(Sighting))
_REPLICA = tuple(replicas.c[field.name] for field in fields(Replica))
_GRANT = tuple(leases.c[field.name] for field in fields(Grant))


def record_look(database: Database, connection: Connection, look: Inventory) -> None:
    """Merge one look into what is known, unless it or a newer one was merged already."""
    looked_at = _looked_at(connection, look.cluster_id)
    if look.at == looked_at or is_stale(looked_at, look.at, database.clock()):
        return
    changed = merge(_sightings(connection, look.cluster_id), looked_at, look)
    if changed:
        connection.execute(
            database.upsert(workers),
            [{"cluster_id": look.cluster_id, **asdict(sighting)} for sighting in changed.values()],
        )
    connection.execute(database.upsert(looks), {"cluster_id": look.cluster_id, "at": look.at})


def known_workers(connection: Connection, cluster_id: str) -> tuple[Worker, ...]:
    """The workers of a cluster that are not gone, by instance id."""
    looked_at = _looked_at(connection, cluster_id)
    if looked_at is None:
        return ()
    brought = (arrivals.c.cluster_id == workers.c.cluster_id) & (arrivals.c.instance_id == workers.c.instance_id)
    rows = connection.execute(
        select(*_SIGHTING, arrivals.c.purchase_id)
        .outerjoin(arrivals, brought)
        .where(workers.c.cluster_id == cluster_id, workers.c.gone_at.is_(None))
    )
    # Ordered here: databases differ in what they take for the order of text.
    found = (Sighting(*sighting).worker(looked_at, purchase_id) for *sighting, purchase_id in rows)
    return tuple(sorted(found, key=lambda worker: worker.instance_id))


def paid_workers(connection: Connection, expiring_before: datetime) -> tuple[PaidWorker, ...]:
    """The workers that are not gone, by cluster and instance id, without those listed as expiring later."""
    brought = (arrivals.c.cluster_id == workers.c.cluster_id) & (arrivals.c.instance_id == workers.c.instance_id)
    rows = connection.execute(
        select(
            *(workers.c[name] for name in ("cluster_id", "instance_id", "instance_type", "expires_at")),
            *(purchases.c[name] for name in ("policy", "terms", "sent_at", "reserved_at")),
        )
        .outerjoin(arrivals, brought)
        .outerjoin(purchases, purchases.c.id == arrivals.c.purchase_id)
        .where(
            workers.c.gone_at.is_(None),
            or_(workers.c.expires_at.is_(None), workers.c.expires_at < expiring_before),
        )
    )
    found = [
        PaidWorker(cluster_id, instance_id, kind, expires_at, policy, terms, sent_at or reserved_at)
        for cluster_id, instance_id, kind, expires_at, policy, terms, sent_at, reserved_at in rows
    ]
    return tuple(sorted(found, key=lambda worker: (worker.cluster_id, worker.instance_id)))


def workers_after(database: Database, connection: Connection, look: Inventory) -> tuple[Worker, ...]:
    """The workers that would be known after ``look``, which is not recorded."""
    looked_at = _looked_at(connection, look.cluster_id)
    if look.at == looked_at or is_stale(looked_at, look.at, database.clock()):
        return known_workers(connection, look.cluster_id)
    known = _sightings(connection, look.cluster_id)
    known |= merge(known, looked_at, look)
    of_cluster = arrivals.c.cluster_id == look.cluster_id
    rows = connection.execute(select(arrivals.c.instance_id, arrivals.c.purchase_id).where(of_cluster))
    brought = {row.instance_id: row.purchase_id for row in rows}
    return tuple(
        sighting.worker(look.at, brought.get(key)) for key, sighting in sorted(known.items()) if not sighting.gone_at
    )


def _sightings(connection: Connection, cluster_id: str) -> dict[str, Sighting]:
    rows = connection.execute(select(*_SIGHTING).where(workers.c.cluster_id == cluster_id))
    return {row.instance_id: Sighting(*row) for row in rows}


def _looked_at(connection: Connection, cluster_id: str) -> datetime | None:
    return connection.execute(select(looks.c.at).where(looks.c.cluster_id == cluster_id)).scalar()


def take_leases(
    database: Database,
    connection: Connection,
    holder: str,
    clusters: Collection[str],
    ttl: timedelta,
    keep: Collection[str],
) -> frozenset[str]:
    """Those of the clusters that ``holder`` may work on until ``ttl`` from now by the database's clock."""
    now = database.now(connection)
    me = Replica(holder, now + ttl, fingerprint(clusters))
    # A later end than anybody could be given now is of a clock that was set back: its holder may be long dead.
    over = (replicas.c.expires_at <= now) | (replicas.c.expires_at > now + ttl)
    connection.execute(delete(replicas).where(over))
    connection.execute(database.upsert(replicas), asdict(me))
    alive = [Replica(*row) for row in connection.execute(select(*_REPLICA))]
    grants = {row.cluster_id: Grant(*row) for row in connection.execute(select(*_GRANT))}
    changed = {grant.cluster_id: grant for grant in dealt(me, clusters, keep, alive, grants.values())}
    if changed:
        connection.execute(database.upsert(leases), [asdict(grant) for grant in changed.values()])
    return frozenset(cluster_id for cluster_id, grant in (grants | changed).items() if grant.holder == holder)


def release_leases(connection: Connection, holder: str) -> None:
    """End the holder's leases now; the rows stay, so that their fences go on growing."""
    connection.execute(delete(replicas).where(replicas.c.holder == holder))
    connection.execute(update(leases).where(leases.c.holder == holder).values(holder=None))


def is_held(database: Database, connection: Connection, cluster_id: str, holder: str) -> bool:
    """Whether ``holder`` holds the lease of the cluster now."""
    held = _held(database.now(connection)).where(leases.c.cluster_id == cluster_id, leases.c.holder == holder)
    return connection.execute(held).first() is not None


def held_leases(database: Database, connection: Connection) -> tuple[Lease, ...]:
    """Every lease that has not run out, by cluster."""
    held = [Lease(*row) for row in connection.execute(_held(database.now(connection)))]
    return tuple(sorted(held, key=lambda lease: lease.cluster_id))


def _held(now: datetime) -> Select[str, str, datetime, int]:
    return (
        select(leases.c.cluster_id, replicas.c.holder, replicas.c.expires_at, leases.c.fence)
        .join(replicas, replicas.c.holder == leases.c.holder)
        .where(replicas.c.expires_at > now)
    )
