"""What the ledger gives back beyond the nouns it was given: numbered decisions, samples, events and leases."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction

from autoscaler.decision import Decision
from autoscaler.model import PurchaseState
from autoscaler.supply import Supply


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision that differed from the one before it, and the number to ask for its evaluation by."""

    id: int
    decision: Decision


@dataclass(frozen=True, slots=True)
class Sample:
    """The last evaluation of one minute, in the numbers a chart needs."""

    at: datetime  # start of the minute
    demand: Fraction | None  # before stabilization; None: no check wanted a number
    wanted: int | None
    supply: Supply | None  # None: capacity was a gap


@dataclass(frozen=True, slots=True)
class PurchaseEvent:
    """One step of a purchase; events are appended and kept for ever."""

    at: datetime
    before: PurchaseState | None  # None: it was reserved by this
    after: PurchaseState
    what: str
    author: str | None  # the person who did it; None: the daemon


@dataclass(frozen=True, slots=True)
class Lease:
    """Who works on a cluster, until when by the database's clock."""

    cluster_id: str
    holder: str
    expires_at: datetime
    fence: int  # grows with each change of holder


class MarkName(StrEnum):
    """What happened to a ledger as a whole."""

    BEGUN = "begun"  # for live policies, by a person's word: it lacks nothing
    BACKUP = "backup"  # stands in a copy alone: it is one
    RESTORED = "restored"  # a daemon found that it is a copy, or a person said so
    REVIEWED = "reviewed"  # a person says that it lacks nothing that matters


@dataclass(frozen=True, slots=True)
class Mark:
    """One of these events; marks are appended and kept for ever."""

    name: MarkName
    at: datetime
    reason: str
    author: str | None  # the person who said so; None: the program
