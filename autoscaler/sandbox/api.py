"""The cloud's API over its world: one route per operation, its parameters, and the documents it answers with.

Field names, defaults and limits are those of the published API, `CS 2015-12-15`; times are written in the cloud's
own zone, +08:00.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TypeVar

from autoscaler.sandbox.order_form import parse_order
from autoscaler.sandbox.refusals import Refusal
from autoscaler.sandbox.wire import Request
from autoscaler.sandbox.world import Cluster, Machine, Order, ScaleOutTask, World

VERSION = "2015-12-15"
PAGE_SIZE, LARGEST_PAGE = 10, 100
CHINA = timezone(timedelta(hours=8))

Document = dict[str, object]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one operation, at an instant of the cloud's clock."""

    world: World
    request: Request
    at: datetime

    @property
    def parameters(self) -> dict[str, str]:
        """The query string's."""
        return self.request.parameters


@dataclass(frozen=True, slots=True)
class Result:
    """What an operation answers, and what it sold."""

    status: int
    document: Document
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One action of the API: its request line, ``*`` standing for an id, and what it does."""

    action: str
    method: str
    path: str
    perform: Callable[[Call, str], Result]

    def matches(self, request: Request) -> bool:
        """Whether the request line is this operation's."""
        pattern = self.path.strip("/").split("/")
        segments = request.segments
        return (
            request.method == self.method
            and len(pattern) == len(segments)
            and all(expected in ("*", segment) for expected, segment in zip(pattern, segments, strict=True))
        )

    def subject(self, request: Request) -> str:
        """The id in the path, or nothing."""
        pattern = self.path.strip("/").split("/")
        return request.segments[pattern.index("*")] if "*" in pattern else ""


def operation_of(request: Request) -> Operation:
    """The operation a request line names. Raises ``Refusal``, GONE as the cloud words it, if there is none."""
    for operation in OPERATIONS:
        if operation.matches(request):
            return operation
    raise Refusal(404, "InvalidApi.NotFound", "Specified api is not found, please check your url and method.")


def scale_out_cluster(call: Call, cluster_id: str) -> Result:
    """Sell workers to a cluster."""
    form = parse_order(call.request.header("content-type"), call.request.body)
    nonce = call.request.header("x-acs-signature-nonce")
    order = call.world.sell(cluster_id, call.at, form, nonce=nonce)
    return Result(202, {"cluster_id": cluster_id, "task_id": order.task_id}, order)


def describe_task_info(call: Call, task_id: str) -> Result:
    """How a task stands."""
    task = call.world.tasks.get(task_id)
    if task is None or task.hidden(call.at):
        raise Refusal(404, "ErrorTaskNotFound", f"task {task_id} not found")
    result = [{"data": instance_id, "status": status} for instance_id, status in task.result(call.at)]
    return Result(200, {**_task(task, call.at), "cluster_id": task.cluster_id, "task_result": result})


def describe_cluster_tasks(call: Call, cluster_id: str) -> Result:
    """A cluster's tasks, newest first."""
    cluster = call.world.cluster(cluster_id)
    tasks = [task for task in reversed(cluster.tasks) if task.fate.in_task_list]
    number, size = _page(call, "page_number", "page_size")
    page = {"page_number": number, "page_size": size, "total_count": len(tasks)}
    shown = [_task(task, call.at) for task in _slice(tasks, number, size)]
    return Result(200, {"tasks": shown, "page_info": page})


def describe_cluster_nodes(call: Call, cluster_id: str) -> Result:
    """A page of a cluster's nodes, as truthful as its ``Listing``."""
    cluster = call.world.cluster(cluster_id)
    number, size = _page(call, "pageNumber", "pageSize")
    machines, seen = cluster.look(call.at, begins=number == 1)
    state = call.parameters.get("state", "all")
    if state not in ("all", "running", "removing", "initial", "failed"):
        raise Refusal(400, "InvalidParameter.state", f"state {state} is invalid")
    nodes = [node for node in (_node(machine, seen) for machine in machines) if state in ("all", node["state"])]
    listing = cluster.listing
    page = {"page_number": number, "page_size": size, "total_count": len(nodes) + listing.total_off_by}
    return Result(200, {"nodes": [] if listing.empty_page else _slice(nodes, number, size), "page": page})


def describe_cluster_detail(call: Call, cluster_id: str) -> Result:
    """A cluster itself."""
    cluster = call.world.cluster(cluster_id)
    return Result(200, _cluster(cluster, call.at))


def describe_user_quota(call: Call, _: str) -> Result:
    """The account's quotas."""
    return Result(200, {"node_quota": call.world.node_quota, "cluster_quota": 20})


OPERATIONS = (
    Operation("ScaleOutCluster", "POST", "/api/v2/clusters/*", scale_out_cluster),
    Operation("DescribeTaskInfo", "GET", "/tasks/*", describe_task_info),
    Operation("DescribeClusterTasks", "GET", "/clusters/*/tasks", describe_cluster_tasks),
    Operation("DescribeClusterNodes", "GET", "/clusters/*/nodes", describe_cluster_nodes),
    Operation("DescribeClusterDetail", "GET", "/clusters/*", describe_cluster_detail),
    Operation("DescribeUserQuota", "GET", "/quota", describe_user_quota),
)


def _task(task: ScaleOutTask, at: datetime) -> Document:
    state = task.state(at)
    ended = state not in ("running", "success", "paused")
    document: Document = {
        "task_id": task.task_id,
        "task_type": "cluster_scaleout",
        "state": state,
        "created": _instant(task.created_at),
        "updated": _instant(min(at, task.ends_at)),
    }
    if ended:
        document["error"] = {"code": task.fate.error_code, "message": task.fate.error_message}
    return document


def _node(machine: Machine, at: datetime) -> Document:
    joined = machine.joins_at is not None and machine.joins_at <= at
    expires_at = machine.term_end(at)
    return {
        "instance_id": machine.instance_id,
        "instance_name": f"edge-{machine.instance_id}",
        "instance_role": machine.role,
        "instance_type": machine.instance_type,
        "instance_charge_type": "PostPaid" if expires_at is None else "PrePaid",
        "creation_time": _instant(machine.created_at),
        "expired_time": "2099-12-31T23:59:00+08:00" if expires_at is None else _instant(expires_at),
        "state": "running" if joined else "initial",
        "node_status": "Ready" if machine.ready(at) else "NotReady",
        "error_message": "",
    }


def _cluster(cluster: Cluster, at: datetime) -> Document:
    return {
        "cluster_id": cluster.cluster_id,
        "name": f"edge-{cluster.cluster_id[:8]}",
        "cluster_type": "ManagedKubernetes",
        "profile": cluster.profile,
        "region_id": "cn-beijing",
        "state": cluster.state_at(at),
        "size": len(cluster.nodes(at)),
        "created": _instant(cluster.created_at),
    }


def _page(call: Call, number_name: str, size_name: str) -> tuple[int, int]:
    number = _positive(call, number_name, 1)
    size = _positive(call, size_name, PAGE_SIZE)
    if size > LARGEST_PAGE:
        raise Refusal(400, f"InvalidParameter.{size_name}", f"{size_name} is at most {LARGEST_PAGE}")
    return number, size


def _positive(call: Call, name: str, default: int) -> int:
    text = call.parameters.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(400, f"InvalidParameter.{name}", f"{name} {text!r} is not a positive number")
    return int(text)


def _slice(items: Sequence[_T], number: int, size: int) -> list[_T]:
    return list(items[(number - 1) * size : number * size])


def _instant(at: datetime) -> str:
    return at.astimezone(CHINA).isoformat(timespec="seconds")
