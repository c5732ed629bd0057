"""What may go wrong with the first purchase that reaches the cloud, and how the course ends when nobody dies of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from autoscaler.sandbox import (
    Answer,
    Cut,
    Dripping,
    Fate,
    Fault,
    Late,
    Listing,
    SandboxCloud,
    Shape,
    Truncated,
    throttled,
)

LATE = timedelta(milliseconds=400)  # of real time
IMPATIENT = timedelta(milliseconds=200)  # a timeout of the cloud that LATE is beyond
PATIENT = timedelta(seconds=20)


class Road(StrEnum):
    """How the first purchase travels to the cloud."""

    STRAIGHT = "straight"
    REFUSED = "refused"  # nobody listens: surely not sent
    SILENT = "silent"  # it is taken and never arrives: no answer, nothing sold


class Call(StrEnum):
    """Why a person is called in the course."""

    UNKNOWN = "unknown"  # a purchase that no evidence settles
    REFUSED = "refused"  # a refusal that waits for one


@dataclass(frozen=True, slots=True)
class Colleague:
    """Somebody who scales out the cluster by the console, as our first purchase is made."""

    when: str  # "before" or "after" ours
    workers: int
    with_task: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault of the first purchase: how the cloud is bent, and what comes of it in a course without a crash."""

    name: str
    answer: Fault | None = None
    fate: Fate | None = None
    listing: Listing | None = None
    road: Road = Road.STRAIGHT
    colleague: Colleague | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[Call, ...] = ()  # a person's help that the course without a crash needs
    sold: tuple[int, ...] = (2, 1)  # the counts of the orders that it comes to

    def arrange(self, cloud: SandboxCloud, cluster_id: str) -> None:
        """Bend the cloud."""
        if self.answer is not None:
            cloud.fail_next(self.answer)
        if self.fate is not None:
            cloud.doom_next(self.fate)
        if self.listing is not None:
            cloud.set_cluster(cluster_id, listing=self.listing)

    @property
    def timeout(self) -> timedelta:
        """How long the cloud's answers are waited for."""
        hangs = isinstance(self.answer, Late | Dripping) or self.road is Road.SILENT
        return IMPATIENT if hangs else PATIENT

    @property
    def settles_itself(self) -> bool:
        """Whether the policy takes absence for proof once the quiet period is over."""
        return "settle_unknown" in self.policy


def _refused(status: int, code: str, shape: Shape = Shape.JSON_LOWER) -> Answer:
    return Answer(status, code, "no", shape)


_ALONE = {"settle_unknown": "after_quiet_period"}
_UNLISTED = Fate(in_task_list=False)

TROUBLES = (
    Trouble("no fault"),
    # the answer is lost
    Trouble("cut before selling", Cut(sold=False), calls=(Call.UNKNOWN,)),
    Trouble("reset before selling", Cut(sold=False, reset=True), calls=(Call.UNKNOWN,)),
    Trouble("cut before selling, settles itself", Cut(sold=False), policy=_ALONE),
    Trouble("cut after selling", Cut(sold=True)),
    Trouble("reset after selling", Cut(sold=True, reset=True)),
    Trouble("cut after selling, settles itself", Cut(sold=True), policy=_ALONE),
    Trouble("500 after selling", Answer(500, "InternalError", sold=True)),
    Trouble("502 in HTML after selling", Answer(502, shape=Shape.HTML, sold=True)),
    Trouble("503 without a code, not sold", Answer(503, shape=Shape.EMPTY), calls=(Call.UNKNOWN,)),
    Trouble("truncated after selling", Truncated(10)),
    Trouble("sold at once, told too late", Late(LATE)),
    Trouble("sold when nobody waits any more", Late(LATE, processed="late")),
    Trouble("drips beyond the timeout", Dripping(LATE / 20)),
    Trouble("lost on the way", road=Road.SILENT, calls=(Call.UNKNOWN,)),
    Trouble("nonce used, not sold", _refused(400, "SignatureNonceUsed"), calls=(Call.UNKNOWN,)),
    Trouble("nonce used, sold", Answer(400, "SignatureNonceUsed", sold=True)),
    # refused
    Trouble("nobody listens", road=Road.REFUSED),
    Trouble("throttled", throttled(503)),
    Trouble("refused: busy", _refused(400, "InvalidStatus.Cluster")),
    Trouble("refused: later", _refused(400, "InventoryExceeded")),
    Trouble("refused: policy", _refused(400, "InvalidParameter.worker_image_id"), calls=(Call.REFUSED,)),
    Trouble("refused: account", _refused(403, "Forbidden.RAM", Shape.JSON_UPPER), calls=(Call.REFUSED,)),
    Trouble("refused: gone", _refused(404, "InvalidApi.NotFound", Shape.XML), calls=(Call.REFUSED,)),
    # the task
    Trouble("task fails", fate=Fate(arrive=0, state="failed"), sold=(2, 2, 1)),
    Trouble("partial success", fate=Fate(arrive=1), sold=(2, 2)),
    Trouble("task 404 at first", fate=Fate(hidden_asks=2)),
    Trouble("task not in the list", fate=_UNLISTED),
    Trouble("task not in the list, cut after selling", Cut(sold=True), fate=_UNLISTED),
    # the listing
    Trouble("listing lags", listing=Listing(lag=timedelta(seconds=70))),
    Trouble("listing lags, cut after selling", Cut(sold=True), listing=Listing(lag=timedelta(seconds=70))),
    Trouble("listing back and forth", listing=Listing(back_and_forth=timedelta(seconds=70))),
    Trouble(
        "listing lags, task not in the list, cut after selling",
        Cut(sold=True),
        fate=_UNLISTED,
        listing=Listing(lag=timedelta(seconds=70)),
    ),
    # somebody else
    Trouble("colleague with task, after ours", colleague=Colleague("after", 1, True), sold=(2,)),
    Trouble("colleague without task, after ours", colleague=Colleague("after", 1, False), sold=(2,)),
    Trouble("colleague with task, before ours", colleague=Colleague("before", 1, True), sold=(2,)),
    Trouble("colleague without task, before ours", colleague=Colleague("before", 1, False), sold=(2,)),
    Trouble(
        "colleague with task, ours cut after selling",
        Cut(sold=True),
        colleague=Colleague("after", 1, True),
        calls=(Call.UNKNOWN,),
        sold=(2,),
    ),
    Trouble(
        "colleague without task, ours cut after selling",
        Cut(sold=True),
        colleague=Colleague("after", 1, False),
        sold=(2,),
    ),
    # Their task is taken for ours, of two; what it does not bring is waited for until provision_timeout, then bought.
    Trouble(
        "colleague with task, ours cut before selling",
        Cut(sold=False),
        colleague=Colleague("after", 1, True),
        sold=(1, 1),
    ),
    Trouble(
        "colleague without task, ours cut before selling",
        Cut(sold=False),
        colleague=Colleague("after", 1, False),
        calls=(Call.UNKNOWN,),
        sold=(2,),
    ),
)
