"""What a simulation came to: its decisions as spans, its purchases and workers, and its capacity over time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from autoscaler.decision import Evaluation
from autoscaler.model import Override, Purchase
from autoscaler.policy import Policy
from autoscaler.simulation.load import Load
from autoscaler.simulation.market import Market
from autoscaler.simulation.spans import Spans


@dataclass(frozen=True, slots=True)
class Level:
    """Where the workers stand from ``at`` until the next level, as they truly are, whatever the node list told."""

    at: datetime
    serving: int  # carry load
    in_flight: int  # bought and not yet serving
    lost: int  # not ready any more, paid for
    paid: int  # all of them, whatever the ledger knows of their purchases


@dataclass(frozen=True, slots=True)
class Tenure:
    """One worker that is paid for, as the cloud knows it."""

    instance_id: str
    purchase_id: int | None  # None: it was there at the start
    since: datetime  # bought then; of those there at the start, the start
    ready_at: datetime | None  # None: it never arrives, or not before the end
    ends_at: datetime | None  # its unrenewed term's end; None: it is renewed, or nobody says when it ends


@dataclass(frozen=True, slots=True)
class Simulation:
    """One policy's course over one load. Instants are those of ticks, aware."""

    policy: Policy  # as simulated: live, and evaluated once a step of the load
    load: Load
    market: Market
    ready: int  # workers there at the start
    overrides: tuple[Override, ...]
    spans: Spans  # oldest first, without a hole: made when they are asked for
    purchases: tuple[Purchase, ...]  # as they stand at the end, oldest first
    tenures: tuple[Tenure, ...]  # oldest first
    levels: tuple[Level, ...]  # oldest first, the first at the start
    _evaluate: Callable[[int], Evaluation]

    def evaluation_at(self, instant: datetime) -> Evaluation:
        """The evaluation in force at an instant, decided again by the live rules.

        Raises ValueError outside of the load. Its history holds runs as far back as the stabilization window looks.
        """
        return self._evaluate(self.load.tick(instant))
