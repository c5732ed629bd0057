"""The nouns of the autoscaler: values that the edges make, the core decides on and the ledger keeps.

Everything here is frozen and knows no I/O and no clock. Instants are aware UTC datetimes named ``…_at``; numbers
of load are ``Fraction``, made from decimal text so that no sum ever buys a worker too many.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction

LARGEST_ID = 2**63 - 1
"""The last number that every ledger can give to something in it."""


class Outcome(StrEnum):
    """What one evaluation of a policy came to."""

    SCALE_OUT = "scale_out"
    BLOCKED = "blocked"
    HOLD = "hold"


class GapReason(StrEnum):
    """Why there is no usable reading; also the label of the gap metric."""

    NO_DATA = "no_data"
    SEVERAL_SERIES = "several_series"
    NOT_A_NUMBER = "not_a_number"
    INFINITE = "infinite"
    STALE = "stale"
    PARTIAL_ANSWER = "partial_answer"
    PARTIAL_COVERAGE = "partial_coverage"
    BAD_QUERY = "bad_query"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    NOT_JSON = "not_json"
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    INCONSISTENT = "inconsistent"
    NOT_A_COUNT = "not_a_count"
    CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that money may rest on: finite, fresh, single and whole."""

    value: Fraction
    at: datetime | None  # when the oldest of its selectors' newest samples was taken; None: its age was not asked for


@dataclass(frozen=True, slots=True)
class Gap:
    """No usable reading, and why."""

    reason: GapReason
    detail: str  # one clause for an operator: Prometheus's own message, the age found, the number of series


@dataclass(frozen=True, slots=True)
class Question:
    """A PromQL expression that has to come to one number, made from samples no older than ``max_age``."""

    query: str
    max_age: timedelta | None  # None: any age will do, and stays unknown


@dataclass(frozen=True, slots=True)
class CheckReading:
    """What was read for one check of a policy."""

    check: str
    load: Reading | Gap
    over: Reading | Gap | None = None  # workers the mean covers, read at the same instant; None: not asked


# --- the cloud's side ---


class RefusalClass(StrEnum):
    """What a refusal of the cloud waits for. A refusal is sure: nothing was bought."""

    BUSY = "busy"  # the cluster is at work: look again in 30 s, without doubling
    LATER = "later"  # throttled, no stock, no balance, no quota: backoff
    POLICY = "policy"  # the request is wrong: until the policy changes
    ACCOUNT = "account"  # signature, credential, permission: until the credential changes or a person retries
    GONE = "gone"  # this cloud no longer sells this way: every policy of it, until the same ends


@dataclass(frozen=True, slots=True)
class Accepted:
    """The cloud took the purchase and named a task for it."""

    task_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The cloud surely bought nothing, and said why."""

    refusal: RefusalClass
    code: str
    message: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Unclear:
    """Nobody can say from the answer whether something was bought."""

    detail: str
    request_id: str | None = None


Answer = Accepted | Refused | Unclear


@dataclass(frozen=True, slots=True)
class Node:
    """One entry of the cloud's node list, as it stood at that look."""

    instance_id: str
    instance_type: str
    role: str  # "Worker" or "Master"
    ready: bool
    state: str
    created_at: datetime | None
    expires_at: datetime | None  # end of the paid term


class TaskState(StrEnum):
    """Fate of a cloud task; the cloud's further words are mapped onto these at the edge."""

    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """A scale-out task of a cluster."""

    task_id: str
    state: TaskState
    created_at: datetime | None
    succeeded: tuple[str, ...] = ()  # instance ids the task says it brought
    failed: tuple[str, ...] = ()  # instance ids the task says it lost
    pending: tuple[str, ...] = ()  # instance ids it names and has not ended with ("initial")
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the cloud says of a cluster itself."""

    state: str  # "running", "scaling", …
    profile: str  # "Edge" for an edge cluster
    size: int  # nodes it counts, for its quota
    node_quota: int | None  # most nodes a cluster may have; None: not told


@dataclass(frozen=True, slots=True)
class Inventory:
    """One whole and consistent look at a cluster."""

    cluster_id: str
    at: datetime
    cluster: Cluster
    nodes: tuple[Node, ...]
    tasks: tuple[Task, ...]  # its scale-out tasks, of which the newest are enough


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker of a cluster as all looks together know it (the ledger keeps what a single look cannot say)."""

    instance_id: str
    instance_type: str
    listed: bool  # in the newest look
    ready: bool  # in the newest look
    created_at: datetime | None
    expires_at: datetime | None
    first_seen_at: datetime
    ready_at: datetime | None  # since when it has been known to be ready for the first time; None: never yet
    last_ready_at: datetime | None
    last_seen_at: datetime
    purchase_id: int | None = None  # the purchase that brought it, where one is known to
    imagined: bool = False  # of a dry run's purchase: counts as supply, carries no load


@dataclass(frozen=True, slots=True)
class Stranger:
    """A scale-out or a worker that no purchase in the ledger claims."""

    name: str  # "task T-1", "worker i-1"
    began_at: datetime


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a decision knows of a cluster's workers."""

    at: datetime
    cluster: Cluster
    workers: tuple[Worker, ...]  # the policy's own
    tasks: tuple[str, ...] = ()  # scale-out tasks of the cluster known by this look
    foreign_tasks: tuple[str, ...] = ()  # running scale-outs that the ledger does not know
    counted: Reading | None = None  # what capacity.query says; None: the policy has none
    alone: bool = True  # False: another policy shares cluster and instance type, so the list cannot tell them apart
    strangers: tuple[Stranger, ...] = ()  # looked for only where the ledger was restored; see restoral.py


# --- purchases ---


class PurchaseState(StrEnum):
    """Fate of one ScaleOutCluster call; the transitions are in purchase.py."""

    INTENDED = "intended"
    SENDING = "sending"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    FULFILLED = "fulfilled"
    FAILED = "failed"
    EXPIRED = "expired"
    NOT_BOUGHT = "not_bought"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the policy said when the purchase was made: later changes of the policy do not reach back."""

    instance_type: str
    ens_region_id: str
    period: int  # months paid at once
    auto_renew: bool
    auto_renew_period: int | None  # months, where it renews itself
    timeout_mins: int
    provision_timeout: timedelta
    assumed_join: timedelta
    settle_unknown: str  # "person" or "after_quiet_period"
    price: Fraction | None  # money per worker and month; None: the policy names none
    currency: str | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A worker that a purchase brought."""

    instance_id: str
    at: datetime
    gone_at: datetime | None = None  # last seen then, and missing from every look for an hour since


@dataclass(frozen=True, slots=True)
class Purchase:
    """One ScaleOutCluster call, as intended, and what is known of its fate."""

    id: int
    policy: str
    policy_version: str
    cluster_id: str
    state: PurchaseState
    asked: int
    terms: Terms
    imagined: bool  # made by a dry run: no cloud ever heard of it
    nonce: str
    signed_at: datetime
    reserved_at: datetime
    endpoint: str  # the cloud it is for
    credential: str  # fingerprint of the credential it was signed with, never the credential
    shared_budgets: tuple[str, ...]
    supply_before: int  # the policy's supply as it was decided on
    tasks_before: tuple[str, ...]  # the cluster's scale-out tasks known by then
    order_id: int | None = None  # the buy order it serves
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    ended_at: datetime | None = None
    task_id: str | None = None
    request_id: str | None = None
    refusal: RefusalClass | None = None
    code: str | None = None
    message: str | None = None
    arrivals: tuple[Arrival, ...] = ()
    failed: int = 0  # workers the task says will not come
    failures: tuple[str, ...] = ()  # instance ids among those, where the task or the list names them
    adopted: bool = False  # found by evidence after an unknown answer: its task's end then settles no count
    overdue_at: datetime | None = None  # first whole look after provision_timeout that still missed some
    retried_at: datetime | None = None  # a person ended its refusal

    @property
    def arrived(self) -> int:
        """Workers it brought."""
        return len(self.arrivals)

    @property
    def outstanding(self) -> int:
        """Workers asked for that neither arrived nor are known to have failed."""
        return max(0, self.asked - self.arrived - self.failed)


@dataclass(frozen=True, slots=True)
class PaidWorker:
    """A worker that is there, and what tells when its paid term ends."""

    cluster_id: str
    instance_id: str
    instance_type: str
    expires_at: datetime | None  # as the node list says; None: it does not
    policy: str | None = None  # of the purchase that brought it; None, as are the next two: none that is known
    terms: Terms | None = None
    bought_at: datetime | None = None


# --- orders of people ---


class OverrideKind(StrEnum):
    """What a person on call may order."""

    FREEZE = "freeze"
    FLOOR = "floor"
    CAP = "cap"
    BUY = "buy"


@dataclass(frozen=True, slots=True)
class Override:
    """An on-call order. Immutable: ending one early is a new fact, told here by the ``ended…`` fields."""

    id: int
    kind: OverrideKind
    policies: tuple[str, ...]  # names or globs; ("*",) is all
    workers: int | None  # of floor, cap and buy
    author: str
    reason: str
    starts_at: datetime  # when it was given, by the clock of whoever took it; it holds from its record on
    ends_at: datetime
    ended_at: datetime | None = None
    ended_by: str | None = None
    ended_reason: str | None = None

    def names(self, policy: str) -> bool:
        """Whether it is for the policy of this name."""
        return any(fnmatchcase(policy, pattern) for pattern in self.policies)

    def active(self, now: datetime) -> bool:
        """Whether it holds at ``now``: up to, not including, its end; it begins and ends early by being recorded.

        Of those two no clock is asked: the one of whoever gave the order may be ahead of the one that obeys it.
        """
        return self.ended_at is None and now < self.ends_at


# --- evaluations ---


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive evaluations of one policy version that wanted the same."""

    policy_version: str
    wanted: Fraction | None  # demand before stabilization; None: no check had a reading or wanted anything
    first_at: datetime
    last_at: datetime
    n: int


@dataclass(frozen=True, slots=True)
class Restoral:
    """The ledger was last put into use without rows that one before it may have had."""

    at: datetime
    copied_at: datetime | None = None  # when the copy was made that it was restored from, if the copy says so
    begun: bool = False  # it is no copy: a person began it empty for live policies


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger knows that a decision of one policy rests on."""

    purchases: tuple[Purchase, ...] = ()  # of the policy, its cluster and its shared budgets, oldest first
    runs: tuple[Run, ...] = ()  # oldest first, reaching back beyond the stabilization window
    gone: tuple[Purchase, ...] = ()  # of each cloud and credential, the newest refused as "gone", if nothing ended that
    restoral: Restoral | None = None  # None: the ledger lacks nothing, or a person has reviewed it since
