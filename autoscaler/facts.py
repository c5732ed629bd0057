"""What a decision rests on, and the draft that the rules pass from one to the next."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from autoscaler.model import Capacity, CheckReading, Gap, History, Outcome, Override, Purchase
from autoscaler.policy import Policy
from autoscaler.strategy import Fleet, Wish
from autoscaler.supply import Supply

Recheck = Sequence[datetime | None]


class Reason(StrEnum):
    """Why a decision came out as it did; also a label of the evaluation metric."""

    NEEDED = "needed"
    ORDERED = "ordered"
    ENOUGH = "enough"
    GAP = "gap"
    CAPACITY_GAP = "capacity_gap"
    CLOCK = "clock"
    STABILIZATION = "stabilization"
    MAXIMUM = "maximum"
    CAP = "cap"
    BUDGET = "budget"
    PURCHASE_OPEN = "purchase_open"
    PURCHASE_UNKNOWN = "purchase_unknown"
    RESTORED = "restored"
    CLUSTER_BUSY = "cluster_busy"
    CLUSTER_UNHEALTHY = "cluster_unhealthy"
    FOREIGN_SCALE_OUT = "foreign_scale_out"
    NOT_EDGE = "not_edge"
    QUOTA = "quota"
    REFUSED_POLICY = "refused_policy"
    REFUSED_ACCOUNT = "refused_account"
    REFUSED_GONE = "refused_gone"
    BACKOFF = "backoff"
    COOLDOWN = "cooldown"
    FREEZE = "freeze"
    RACED = "raced"
    NO_PASSWORD = "no_password"

    @property
    def outcome(self) -> Outcome:
        """The outcome a decision with this reason has."""
        if self in (Reason.NEEDED, Reason.ORDERED):
            return Outcome.SCALE_OUT
        return Outcome.BLOCKED if self in _BLOCKS else Outcome.HOLD


# A limit, an open purchase, a refusal or a person forbids what is needed; the rest only wait.
_BLOCKS = frozenset(
    {
        Reason.MAXIMUM,
        Reason.CAP,
        Reason.BUDGET,
        Reason.PURCHASE_OPEN,
        Reason.PURCHASE_UNKNOWN,
        Reason.RESTORED,
        Reason.NOT_EDGE,
        Reason.QUOTA,
        Reason.REFUSED_POLICY,
        Reason.REFUSED_ACCOUNT,
        Reason.REFUSED_GONE,
        Reason.FREEZE,
        Reason.NO_PASSWORD,
    }
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision rests on; stored with it, so that it can be replayed."""

    policy: Policy
    now: datetime
    readings: tuple[CheckReading, ...]
    capacity: Capacity | Gap
    history: History
    overrides: tuple[Override, ...]  # those active now that name the policy
    endpoint: str  # the cloud that would sell
    credential: str  # fingerprint of the credential that would sign

    def own_purchases(self) -> tuple[Purchase, ...]:
        """The policy's purchases in its cluster, oldest first."""
        policy = self.policy
        return tuple(
            purchase
            for purchase in self.history.purchases
            if purchase.policy == policy.name and purchase.cluster_id == policy.cluster_id
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule did to the number of workers to add, and why."""

    rule: str
    add: int  # workers to add after this rule
    reason: Reason | None  # why it says no; None: it does not
    says: str


class Draft(NamedTuple):
    """A decision in the making. A tuple, as every rule makes a new one of it: copied in a tenth of the time."""

    supply: Supply | Gap
    fleet: Fleet | Gap
    purchases: tuple[Purchase, ...]  # the policy's own
    wishes: tuple[tuple[str, Wish | Gap], ...]  # what each check wants, by its name
    demand: Fraction | None = None  # before stabilization
    load: str = ""  # what the checks say, for the sentence, also where a target asks for more
    wanted: Fraction | None = None  # after the rules so far
    cause: str = ""  # who wants that, for the sentence
    waits: Reason | None = None  # why demand, or part of it, is held back: a gap, a window not yet full
    waits_for: str = ""
    missing: int = 0  # workers to add, before any limit
    add: int = 0  # workers to add, after the rules so far
    limited: str = ""  # the limit that made add smaller
    order: Override | None = None  # the buy order that is served
    unknown: str = ""  # a purchase of the cluster whose outcome nobody knows: every sentence names it
    reason: Reason | None = None  # why nothing is bought: what the first rule to say no says
    objection: str = ""
    verdicts: tuple[Verdict, ...] = ()
    recheck: tuple[datetime, ...] = ()  # instants at which time alone may change something

    def says(self, rule: str, text: str, recheck: Recheck = (), **changes: Any) -> "Draft":
        """Leave a verdict that does not say no. ``recheck``: when time alone may change what the rule says."""
        return self._with(rule, None, text, recheck, changes)

    def objects(self, rule: str, reason: Reason, text: str, recheck: Recheck = ()) -> "Draft":
        """Leave a verdict that says no, where there is something to say no to; the first is the decision's reason."""
        if not self.add:
            return self.says(rule, text)
        return self.concludes(rule, reason, text, recheck if self.reason is None else ())

    def concludes(self, rule: str, reason: Reason, text: str, recheck: Recheck = (), **changes: Any) -> "Draft":
        """Leave a verdict that nothing is bought, whether or not anything was about to be."""
        if self.reason is None:
            changes |= {"reason": reason, "objection": text}
        return self._with(rule, reason, text, recheck, changes)

    def limits(self, rule: str, reason: Reason, left: int, text: str, recheck: Recheck = ()) -> "Draft":
        """Leave no more than ``left`` workers to add; none left is a verdict that says no.

        Here and in ``objects`` time counts only where the rule may change what comes out: not where nothing is to be
        added, nor after another has said no.
        """
        if not self.add:
            return self.says(rule, text)
        if self.reason is not None:
            recheck = ()
        if self.add <= left:
            return self.says(rule, text, recheck)
        if left > 0:
            return self.says(rule, text, recheck, add=left, limited=text)
        return self.concludes(rule, reason, text, recheck, add=0)

    def _with(self, rule: str, reason: Reason | None, text: str, recheck: Recheck, changes: dict[str, Any]) -> "Draft":
        verdict = Verdict(rule, changes.get("add", self.add), reason, text)
        if recheck:
            changes["recheck"] = (*self.recheck, *(at for at in recheck if at is not None))
        return self._replace(verdicts=(*self.verdicts, verdict), **changes)
