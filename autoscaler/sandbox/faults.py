"""The ways the fakes misbehave, as values.

A fault bends one answer and says, where that matters, whether the purchase was made all the same. ``Fate`` is what
becomes of the task of a sale, ``Listing`` how truthful a cluster's node list is.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from autoscaler.sandbox.refusals import Shape
from autoscaler.sandbox.wire import Cutoff, Reply


@dataclass(frozen=True, slots=True)
class Late:
    """The answer comes late.

    ``processed`` on arrival: the sale is made at once and its answer held back. ``processed`` late: the request lies
    in a queue first, so that the sale is made even if the client has long gone.
    """

    by: timedelta
    processed: Literal["on_arrival", "late"] = "on_arrival"
    kind: Literal["late"] = "late"


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is closed (or reset) without an answer, before or after the request was processed."""

    sold: bool
    reset: bool = False
    kind: Literal["cut"] = "cut"


@dataclass(frozen=True, slots=True)
class Truncated:
    """The request is processed and the connection cut after so many bytes of the body."""

    keep: int = 10
    kind: Literal["truncated"] = "truncated"


@dataclass(frozen=True, slots=True)
class Dripping:
    """The request is processed and the body sent byte by byte, each of them in time for a read timeout."""

    every: timedelta
    kind: Literal["dripping"] = "dripping"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of one's own choice: a refusal in any shape, or a failure after the sale."""

    status: int
    code: str = ""
    message: str = ""
    shape: Shape = Shape.JSON_UPPER
    sold: bool = False
    body: str | None = None  # in place of one made of code, message and shape
    kind: Literal["answer"] = "answer"


Fault = Late | Cut | Truncated | Dripping | Answer


def bend(fault: Fault | None, process: Callable[[], Reply], write: Callable[[Answer], Reply]) -> Reply | Cutoff:
    """Process a request or seem to, and answer it as the fault says; ``write`` puts an ``Answer`` into bytes."""
    if isinstance(fault, Cut | Answer):
        if fault.sold:
            process()
        return Cutoff(fault.reset) if isinstance(fault, Cut) else write(fault)
    reply = process()
    match fault:
        case Late(processed="on_arrival"):
            return replace(reply, after=fault.by)
        case Truncated():
            return replace(reply, keep=fault.keep)
        case Dripping():
            return replace(reply, drip=fault.every)
        case _:
            return reply


def throttled(status: int = 503) -> Answer:
    """Refused before it was processed; the cloud says so with 400, 429 or 503."""
    return Answer(status, "Throttling.User", "Request was denied due to user flow control.")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a sale's workers and of its task; everything else goes as usual."""

    arrive: int | None = None  # workers that come; None: all of them
    joins_after: timedelta | None = None  # None: the cloud's join delay
    state: Literal["success", "failed", "fail", "paused", "canceled"] | None = None  # None: as the workers fared
    ends_after: timedelta | None = None  # the task's end; None: when the last worker joined
    error_code: str = "InstanceCreateFailed"  # of a task that does not end in success
    error_message: str = "not all instances could be created"
    hidden_for: timedelta = timedelta(0)  # asking for the task gives 404 for so long
    hidden_asks: int = 0  # and for the first so many asks
    in_task_list: bool = True  # False: the cluster's task list never shows it


@dataclass(frozen=True, slots=True)
class Listing:
    """How a cluster's node list differs from the truth.

    A look begins with a request for page 1; ``back_and_forth`` makes every second look show the older view.
    """

    lag: timedelta = timedelta(0)  # age of what it shows
    back_and_forth: timedelta = timedelta(0)  # age of what every second look shows on top of that
    total_off_by: int = 0  # error of total_count
    empty_page: bool = False  # the total is right and the pages are empty


HONEST = Listing()
