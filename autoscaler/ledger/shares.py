"""How replicas share clusters: who may take which lease, and who gives one up.

A replica announces itself each time it asks, and its leases last as long as its announcement does: to renew them all
is to write one row. Replicas that ask for the same clusters share them evenly, each by one look at who holds what.
What nobody holds is taken by whoever asks first and has room; what somebody holds is never taken from him, he gives
it up when he has more than his share. So clusters move only when replicas come and go.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256


@dataclass(frozen=True, slots=True)
class Replica:
    """A daemon that asked for clusters, and is taken to be alive until its announcement runs out."""

    holder: str
    expires_at: datetime
    asks: str  # fingerprint of the clusters it asked for


@dataclass(frozen=True, slots=True)
class Grant:
    """Whom a cluster was last granted to; worth nothing once the holder's announcement has run out."""

    cluster_id: str
    holder: str | None  # None: given back
    fence: int  # grows each time the cluster is taken


def fingerprint(clusters: Iterable[str]) -> str:
    """The same for the same clusters, in any order."""
    return sha256("\n".join(sorted(set(clusters))).encode()).hexdigest()


def dealt(
    me: Replica,
    clusters: Collection[str],
    keep: Collection[str],
    replicas: Collection[Replica],
    grants: Collection[Grant],
) -> list[Grant]:
    """The grants that change when ``me`` asks for ``clusters``; the others stay as they are.

    ``replicas`` are those alive, ``me`` among them. Those that ask for other clusters are not shared with: what one of
    them holds is out of reach, and they may want nothing of what is left. ``keep`` is not given up for evenness.
    """
    known = {grant.cluster_id: grant for grant in grants}
    alive = {replica.holder for replica in replicas}
    peers = {replica.holder for replica in replicas if replica.asks == me.asks}
    held_by = {grant.cluster_id: grant.holder for grant in grants if grant.holder in alive}
    within_reach = [cluster for cluster in sorted(set(clusters)) if held_by.get(cluster, me.holder) in peers]
    counts = Counter(held_by[cluster] for cluster in within_reach if cluster in held_by)

    least, left_over = divmod(len(within_reach), len(peers))
    with_one_more = sum(counts[peer] > least for peer in peers - {me.holder})
    share = least + (with_one_more < left_over)

    mine = [cluster for cluster in within_reach if held_by.get(cluster) == me.holder]
    mine.sort(key=lambda cluster: cluster not in keep)
    kept = mine[: max(share, len(set(mine) & set(keep)))]
    free = [cluster for cluster in within_reach if cluster not in held_by]
    taken = free[: max(0, share - len(kept))]
    given_up = {cluster for cluster, holder in held_by.items() if holder == me.holder} - set(kept)
    return [
        *(Grant(cluster, me.holder, known[cluster].fence + 1 if cluster in known else 1) for cluster in taken),
        *(Grant(cluster, None, known[cluster].fence) for cluster in sorted(given_up)),
    ]
