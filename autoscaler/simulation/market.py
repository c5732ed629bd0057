"""How the simulated cloud sells: how long workers take to join, how many never do, and what goes wrong when.

These are only wishes; ``cloud.py`` carries them out. Everything drawn by chance comes from ``seed`` and the number of
the purchase, so that equal inputs give equal courses.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from autoscaler.model import GapReason, RefusalClass


@dataclass(frozen=True, slots=True)
class JoinDelay:
    """From the purchase to a worker that is ready: between ``least`` and ``most``, most often ``likely``.

    Each worker draws its own, from a triangular distribution. Raises ValueError if the three are not in order.
    """

    least: timedelta
    likely: timedelta
    most: timedelta

    def __post_init__(self) -> None:
        if not timedelta(0) <= self.least <= self.likely <= self.most:
            raise ValueError("a join delay needs least ≤ likely ≤ most, and none below 0s")

    @classmethod
    def fixed(cls, delay: timedelta) -> "JoinDelay":
        """Always the same."""
        return cls(delay, delay, delay)

    def draw(self, chance: Random) -> timedelta:
        """One worker's delay, in whole seconds."""
        low, likely, high = (delay.total_seconds() for delay in (self.least, self.likely, self.most))
        return timedelta(seconds=round(chance.triangular(low, high, likely)))


class Fate(StrEnum):
    """What becomes of a purchase that a fault meets; the words of a policy test's ``purchase:``."""

    UNKNOWN = "unknown"  # no answer, and nothing was bought
    UNANSWERED = "unanswered"  # no answer, yet it was bought
    FAILED = "failed"  # accepted, then its task fails and nothing arrives
    PARTIAL = "partial"  # accepted, and only `arrive` workers come
    REFUSED = "refused"  # surely nothing bought, for a reason of class `refusal`


@dataclass(frozen=True, slots=True)
class PurchaseFault:
    """What happens to the first purchase sent at ``at`` or later; each fault meets one purchase."""

    at: datetime
    fate: Fate
    arrive: int = 0  # of PARTIAL: workers that come, fewer than asked for
    refusal: RefusalClass = RefusalClass.LATER  # of REFUSED


@dataclass(frozen=True, slots=True)
class ReadingFault:
    """A check is a gap from ``at`` up to, not including, ``until``; with no ``check``, all that Prometheus is asked."""

    at: datetime
    until: datetime
    check: str | None = None
    reason: GapReason = GapReason.UNREACHABLE


@dataclass(frozen=True, slots=True)
class CapacityFault:
    """The node list is a gap from ``at`` up to, not including, ``until``."""

    at: datetime
    until: datetime
    reason: GapReason = GapReason.TIMEOUT


@dataclass(frozen=True, slots=True)
class WorkerFault:
    """``workers`` that serve at ``at``, the oldest, are lost until ``until``; None: for good, and paid to their end."""

    at: datetime
    workers: int
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ClusterFault:
    """The cluster's state is ``state`` from ``at`` up to, not including, ``until``; "foreign": somebody scales it out.

    Of a foreign scale-out nothing arrives here: it is another's instance type.
    """

    at: datetime
    until: datetime
    state: str = "updating"


FOREIGN = "foreign"
"""The ``state`` of a ClusterFault that means a task of somebody else."""

Fault = PurchaseFault | ReadingFault | CapacityFault | WorkerFault | ClusterFault


@dataclass(frozen=True, slots=True)
class Market:
    """How the cloud sells in a simulation. Prices, periods and renewals are the policy's own."""

    join: JoinDelay | None = None  # None: the policy's assumed_join, always
    failing: float = 0.0  # chance of each worker never to arrive, though it is paid for: 0 to 1
    seed: int = 0
    node_quota: int | None = None  # most nodes the cluster may have; None: no limit
    standing_ends: tuple[datetime, ...] = ()  # of workers there at the start: ends of unrenewed terms; the others stay
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.failing <= 1:
            raise ValueError(f"{self.failing:g} is no chance: write 0 to 1, like 0.05 for one worker in twenty")


HONEST = Market()
"""Sells what is asked for, all of which joins after the policy's assumed_join."""
