"""Leases in lists: what ``cluster_rows`` does with those for the ledger in lists."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta

from autoscaler.ledger.records import Lease
from autoscaler.ledger.shares import Grant, Replica, dealt, fingerprint


class LeaseList:
    """Replicas, and the clusters that they were granted. Locking is the caller's."""

    def __init__(self) -> None:
        self._replicas: dict[str, Replica] = {}
        self._grants: dict[str, Grant] = {}

    def lease(
        self, holder: str, clusters: Collection[str], ttl: timedelta, keep: Collection[str], now: datetime
    ) -> frozenset[str]:
        """Announce a replica, and deal out the clusters it asks for: those it then holds."""
        me = Replica(holder, now + ttl, fingerprint(clusters))
        alive = (r for r in self._replicas.values() if now < r.expires_at <= me.expires_at)
        self._replicas = {r.holder: r for r in (*alive, me)}
        changed = dealt(me, clusters, keep, self._replicas.values(), self._grants.values())
        self._grants |= {grant.cluster_id: grant for grant in changed}
        return frozenset(grant.cluster_id for grant in self._grants.values() if grant.holder == holder)

    def release(self, holder: str) -> None:
        """Give back all that a replica holds."""
        self._replicas.pop(holder, None)
        given_back = [replace(grant, holder=None) for grant in self._grants.values() if grant.holder == holder]
        self._grants |= {grant.cluster_id: grant for grant in given_back}

    def holders(self, now: datetime) -> tuple[Lease, ...]:
        """The leases that hold at ``now``, by cluster."""
        held = (
            Lease(cluster_id, replica.holder, replica.expires_at, grant.fence)
            for cluster_id, grant in sorted(self._grants.items())
            if (replica := self._replicas.get(grant.holder or ""))
        )
        return tuple(lease for lease in held if lease.expires_at > now)
