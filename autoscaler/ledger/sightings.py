"""What many looks at a cluster know of its workers that a single look cannot say.

A node list lags and goes back and forth, so a worker is remembered from its first look until it has been missing for
an hour. A sighting keeps no time that the newest look implies: while a worker is listed it was last seen at that look.
So a look that shows nothing new changes no sighting, and costs one row however many workers there are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from autoscaler.model import Inventory, Node, Worker

GONE_AFTER = timedelta(hours=1)
_TOLD_BY_OUR_CLOCK = ("first_seen_at", "ready_at", "last_ready_at", "last_seen_at", "missing_at", "gone_at")


@dataclass(frozen=True, slots=True)
class Sighting:
    """One worker, as of the newest look at its cluster."""

    instance_id: str
    instance_type: str
    listed: bool
    ready: bool
    created_at: datetime | None
    expires_at: datetime | None
    first_seen_at: datetime
    ready_at: datetime | None
    last_ready_at: datetime | None = None  # None while ready (it is the newest look's time), or never ready
    last_seen_at: datetime | None = None  # None while listed (it is the newest look's time)
    missing_at: datetime | None = None  # the first look that missed it; None while listed
    gone_at: datetime | None = None  # last seen then, once it has been missing for GONE_AFTER

    def worker(self, looked_at: datetime, purchase_id: int | None) -> Worker:
        """The worker as of the newest look, taken at ``looked_at``."""
        return Worker(
            instance_id=self.instance_id,
            instance_type=self.instance_type,
            listed=self.listed,
            ready=self.ready,
            created_at=self.created_at,
            expires_at=self.expires_at,
            first_seen_at=self.first_seen_at,
            ready_at=self.ready_at,
            last_ready_at=looked_at if self.ready else self.last_ready_at,
            last_seen_at=self.last_seen_at or looked_at,
            purchase_id=purchase_id,
        )


def merge(known: Mapping[str, Sighting], looked_at: datetime | None, look: Inventory) -> dict[str, Sighting]:
    """The sightings that ``look`` changes or adds, by instance id.

    ``known`` is as of the newest earlier look, taken at ``looked_at``; None: this is the first look at the cluster. An
    earlier look with a later time was taken by a clock that was ahead: what it told is taken for as old as this one.
    """
    if looked_at is not None and looked_at > look.at:
        before, known, looked_at = known, {key: _not_after(look.at, each) for key, each in known.items()}, look.at
        changed = {key: each for key, each in known.items() if each != before[key]}
        return changed | merge(known, looked_at, look)
    nodes = {node.instance_id: node for node in look.nodes if node.role == "Worker"}
    now = {key: _seen(known.get(key), looked_at, node, look.at) for key, node in nodes.items()}
    if looked_at is not None:
        now |= {key: _missed(before, looked_at, look.at) for key, before in known.items() if key not in nodes}
    return {key: sighting for key, sighting in now.items() if sighting != known.get(key)}


def _not_after(at: datetime, sighting: Sighting) -> Sighting:
    """The sighting without a time later than ``at``."""
    times = {name: getattr(sighting, name) for name in _TOLD_BY_OUR_CLOCK}
    return replace(sighting, **{name: min(time, at) for name, time in times.items() if time is not None})


def _seen(before: Sighting | None, looked_at: datetime | None, node: Node, at: datetime) -> Sighting:
    ready_at = before.ready_at if before else None
    if node.ready and ready_at is None:
        # Who is ready on the very first look has been so for an unknown while: it must not count as warming up.
        ready_at = at if looked_at else min(node.created_at or at, at)
    return Sighting(
        instance_id=node.instance_id,
        instance_type=node.instance_type,
        listed=True,
        ready=node.ready,
        created_at=node.created_at or (before.created_at if before else None),
        expires_at=node.expires_at or (before.expires_at if before else None),
        first_seen_at=before.first_seen_at if before else at,
        ready_at=ready_at,
        last_ready_at=None if node.ready or before is None else _last_ready(before, looked_at),
    )


def _missed(before: Sighting, looked_at: datetime, at: datetime) -> Sighting:
    if before.listed:
        last_ready_at = _last_ready(before, looked_at)
        return replace(
            before, listed=False, ready=False, last_ready_at=last_ready_at, last_seen_at=looked_at, missing_at=at
        )
    if before.gone_at is None and before.missing_at is not None and at - before.missing_at >= GONE_AFTER:
        return replace(before, gone_at=before.last_seen_at)
    return before


def _last_ready(before: Sighting, looked_at: datetime | None) -> datetime | None:
    return looked_at if before.ready else before.last_ready_at
