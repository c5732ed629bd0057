"""When within its period a policy is evaluated: in a slot of 250 ms that its name gives it.

Policies of one slot are evaluated together, which makes thousands of policies a few dozen jobs, and spreads them over
the period. The slot comes from the name alone and slots are counted from the Unix epoch, so neither a restart nor
another replica moves an evaluation.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

SLOT = timedelta(milliseconds=250)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A place within a period; equal for all policies that are evaluated together."""

    period: timedelta
    index: int  # counted from 0, in steps of SLOT

    def next_start(self, now: datetime) -> datetime:
        """The first instant at or after ``now`` at which the slot begins."""
        first = _EPOCH + self.index * SLOT
        periods_passed = -((first - now) // self.period)  # rounded up: the next one, or the one that begins now
        return first + periods_passed * self.period


def slot_of(policy: str, period: timedelta) -> Slot:
    """The slot of the policy of that name, evaluated every ``period`` (more than zero)."""
    digest = hashlib.blake2b(policy.encode(), digest_size=8).digest()
    return Slot(period, int.from_bytes(digest) % max(1, period // SLOT))
