"""What people on call are served from, for tests: a ledger in lists, two policies, and a token each for ana and bo."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from functools import partial
from typing import Any

from pydantic import SecretStr

from autoscaler.decision import Evaluation, decide
from autoscaler.ledger import LedgerError, MemoryLedger, NotFound
from autoscaler.model import GapReason, OverrideKind, Purchase, RefusalClass
from autoscaler.orders import Orders, progress
from autoscaler.overview import overview
from autoscaler.policy import Policy
from autoscaler.web import Access, Desk
from tests.build import NOW, at, capacity, facts, policy, purchase, unread, workers
from tests.fakes import FlakyLedger

EDGE = policy(price_per_worker_month=Fraction(180), currency="CNY", per_action=2, maximum=20, labels={"team": "live"})
OTHER = policy(name="other", cluster_id="C2", dry_run=True)
SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
ANA, BO = "token-of-ana-0123456789", "token-of-bo-0123456789"


@dataclass(frozen=True)
class Token:
    """A bearer token."""

    author: str
    token: SecretStr


class Counter:
    """Where orders are given, over a ledger in lists; its policies were evaluated at noon with ten workers each."""

    def __init__(self, *policies: Policy) -> None:
        self.now = NOW
        self.memory = MemoryLedger(clock=self.clock)
        self.ledger: Any = FlakyLedger(self.memory)
        self.policies: Sequence[Policy] = policies or (EDGE, OTHER)
        self.orders = Orders(ledger=self.ledger, policies=lambda: self.policies, clock=self.clock)
        self.tokens: list[Token] | None = [Token("ana", SecretStr(ANA)), Token("bo", SecretStr(BO))]
        self.delays: list[float] = []
        for each in self.policies:
            self.evaluate(each)

    def clock(self) -> datetime:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.delays.append(seconds)

    def desk(self, *, reads_need_token: bool = False) -> Desk:
        """As wiring makes it."""
        access = Access(
            None if self.tokens is None else lambda: self.tokens or (),
            reads_need_token=reads_need_token,
            timer=lambda: (self.now - NOW).total_seconds(),
            sleep=self.sleep,
        )
        return Desk(
            reads=self.ledger,
            orders=self.orders,
            overview=lambda: overview(self.ledger, self.policies, self.now),
            progress=partial(progress, self.ledger),
            access=access,
            clock=self.clock,
            failures={NotFound: 404, LedgerError: 503},
        )

    def evaluate(self, of: Policy, load: int = 4000, **given: Any) -> None:
        """Record an evaluation of a policy."""
        known = facts(of, load, **({"capacity": capacity(workers(10)), "now": self.now} | given))
        self.memory.record([Evaluation(known, decide(known))])

    def keep(self, made: Purchase) -> None:
        """Put a purchase into the ledger."""
        self.memory._store(made)

    def keep_unknown(self, **fields: Any) -> Purchase:
        """Put a purchase of unknown outcome into the ledger."""
        plain = {"id": 7, "state": "unknown", "asked": 3, "of": EDGE, "sent_at": at(minutes=-40)}
        made = purchase(**(plain | fields))
        self.keep(made)
        return made

    def come_alive(self) -> None:
        """Have everything there is to show, at once, some of it hostile."""
        self.keep(purchase(id=3, state="fulfilled", asked=2, of=EDGE, sent_at=at(hours=-5)))
        refused = {"refusal": RefusalClass.ACCOUNT, "code": "Forbidden", "message": SCRIPT}
        self.keep(purchase(id=5, state="rejected", of=OTHER, **refused))
        self.keep_unknown()
        for kind, number in ((OverrideKind.FREEZE, None), (OverrideKind.FLOOR, 4), (OverrideKind.BUY, 2)):
            self.memory.add_override(kind, ("edge",), number, "bo", SCRIPT, at(hours=-1), at(hours=2))
        self.memory.end_override(2, "ana", SCRIPT, at(minutes=-5))
        known = {
            "overrides": self.memory.overrides(NOW),
            "history": self.memory.histories([EDGE], NOW)["edge"],
        }
        for minutes in range(30, -1, -1):
            self.now = at(minutes=-minutes)
            self.evaluate(EDGE, 4000 + minutes, capacity=capacity(workers(10), at=self.now), **known)
        self.evaluate(OTHER, readings=(unread(reason=GapReason.STALE),))
