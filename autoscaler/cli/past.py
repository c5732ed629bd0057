"""What the daemon did in a time that is simulated, out of its ledger, to put a draft beside it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from autoscaler.clock import utc_now
from autoscaler.facts import Reason
from autoscaler.ledger import LedgerView, view_ledger
from autoscaler.ledger.records import StoredDecision
from autoscaler.model import Outcome, Override, Purchase
from autoscaler.purchase import NOTHING_BOUGHT
from autoscaler.settings import Settings

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Past:
    """What the daemon decided and bought for one policy, within a time."""

    policy: str
    since: datetime  # the first decision known within that time; earlier ones have aged out
    purchases: tuple[Purchase, ...]  # oldest first
    overrides: tuple[Override, ...]  # orders of people in that time: they hold for the draft too
    reasons: Mapping[Reason, int]  # how many decisions that said something new had it
    lasted: Mapping[Reason, timedelta]  # from each such decision to the next
    peak_serving: int | None  # None: it was never known

    @property
    def bought(self) -> int:
        """Workers asked for, without those that were refused."""
        return sum(purchase.asked for purchase in self.purchases if purchase.state not in NOTHING_BOUGHT)


def past_of(times: Mapping[str, tuple[datetime, datetime]], settings: Settings) -> dict[str, Past]:
    """What the daemon did for each policy, by name, from one instant up to another. Raises LedgerError.

    A policy that the ledger knows nothing of in that time is left out.
    """
    ledger = view_ledger(settings.ledger().get_secret_value(), clock=utc_now)
    try:
        found: dict[str, Past] = {}
        for name, (start_at, end_at) in times.items():
            decisions = _decisions(ledger, name, start_at, end_at)
            purchases = [
                purchase
                for purchase in reversed(ledger.purchases(policy=name, limit=None))
                if start_at <= purchase.reserved_at < end_at
            ]
            if decisions or purchases:
                orders = _orders(ledger, name, start_at, end_at)
                found[name] = _past(name, decisions, tuple(purchases), orders, end_at)
        return found
    finally:
        ledger.close()


def _orders(ledger: LedgerView, policy: str, start_at: datetime, end_at: datetime) -> tuple[Override, ...]:
    """The orders of people that held for a policy within a time, oldest first."""
    found: list[Override] = []
    before_id: int | None = None
    while True:
        page = ledger.override_history(before_id=before_id, limit=_PAGE)
        for order in page:
            over_at = order.ends_at if order.ended_at is None else min(order.ends_at, order.ended_at)
            if order.names(policy) and order.starts_at < end_at and over_at > start_at:
                found.append(order)
        if len(page) < _PAGE:
            return tuple(found[::-1])
        before_id = page[-1].id


def _decisions(ledger: LedgerView, policy: str, start_at: datetime, end_at: datetime) -> list[StoredDecision]:
    """The decisions of that time that said something new, and the one in force at its start; oldest first."""
    found: list[StoredDecision] = []
    before_id: int | None = None
    while True:
        page = ledger.decisions(policy=policy, before_id=before_id, limit=_PAGE)
        for stored in page:
            if stored.decision.at < end_at:
                found.append(stored)
            if stored.decision.at <= start_at:
                return found[::-1]
        if len(page) < _PAGE:
            return found[::-1]
        before_id = page[-1].id


def _past(
    policy: str,
    decisions: Sequence[StoredDecision],
    purchases: tuple[Purchase, ...],
    overrides: tuple[Override, ...],
    end_at: datetime,
) -> Past:
    reasons, lasted = Counter[Reason](), dict[Reason, timedelta]()
    ends = [*(stored.decision.at for stored in decisions[1:]), end_at]
    for stored, until in zip(decisions, ends, strict=True):
        decision = stored.decision
        if decision.outcome is not Outcome.SCALE_OUT and decision.reason is not Reason.ENOUGH:
            reasons[decision.reason] += 1
            lasted[decision.reason] = lasted.get(decision.reason, timedelta(0)) + (until - decision.at)
    known = [stored.decision.supply.serving for stored in decisions if stored.decision.supply is not None]
    since = decisions[0].decision.at if decisions else purchases[0].reserved_at
    return Past(policy, since, purchases, overrides, reasons, lasted, max(known, default=None))
