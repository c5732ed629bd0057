"""What the answers to reads say: pages of JSON in, values out, or Malformed.

Strict where a wrong guess would buy: an entry that cannot be told from another, a total that does not add up, a role
that is missing are Malformed, and the whole look with them. What only informs may be absent.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count

from autoscaler.cloud.refusals import one_line
from autoscaler.model import Cluster, Node, Task, TaskState

NODES_PAGE = 100  # the node list's largest page
TASKS_PAGE = 50
RECENT = timedelta(days=1)  # a task older than this is of no open purchase

# Of tasks and of their single results. Everything else, "running", "initial", "paused", may still bring workers.
_TASK_STATES = {
    "success": TaskState.SUCCESS,
    "fail": TaskState.FAILED,
    "failed": TaskState.FAILED,
    "canceled": TaskState.FAILED,
    "cancelled": TaskState.FAILED,
}

Get = Callable[[str, str, Mapping[str, str]], object]  # path, action, query -> parsed JSON


class Malformed(Exception):
    """An answer is not what the API's page says, or contradicts itself."""


def read_nodes(get: Get, cluster_path: str) -> tuple[Node, ...]:
    """Every page of a cluster's node list, in agreement with its total.

    A page may hold fewer than were asked for: the next ones are asked for until the total is there.

    Raises:
        Malformed: the total changes between pages, is not reached or is exceeded, or a node is listed twice.
    """
    found: dict[str, Node] = {}
    listed, total = 0, None
    for number in count(1):
        query = {"pageNumber": str(number), "pageSize": str(NODES_PAGE), "state": "all"}
        page = _object(get(f"{cluster_path}/nodes", "DescribeClusterNodes", query), "the node list")
        entries = _list(page, "nodes")
        counted = _number(_object(page.get("page"), "page"), "total_count")
        if total is not None and counted != total:
            raise Malformed(f"the node list's total went from {total} to {counted} between two pages")
        total = counted
        listed += len(entries)
        for entry in entries:
            node = _node(entry)
            if node is None:
                continue
            if node.instance_id in found:
                raise Malformed(f"the node list has {node.instance_id} twice")
            found[node.instance_id] = node
        if listed == total:
            break
        if listed > total or not entries:
            raise Malformed(f"the node list holds {listed} of the {total} nodes it counts")
    return tuple(found.values())


def read_scale_outs(get: Get, cluster_path: str, now: datetime) -> tuple[Task, ...]:
    """A cluster's scale-out tasks, at least those younger than a day.

    The list's order is nowhere promised: it ends early only where a page shows that the newest come first.

    Raises:
        Malformed: an entry cannot be read.
    """
    seen: set[str] = set()
    found: list[Task] = []
    for number in count(1):
        query = {"page_number": str(number), "page_size": str(TASKS_PAGE)}
        page = _object(get(f"{cluster_path}/tasks", "DescribeClusterTasks", query), "the task list")
        entries = [_object(entry, "a task") for entry in _list(page, "tasks")]
        fresh = [entry for entry in entries if _name(entry, "task_id") not in seen]
        seen.update(_name(entry, "task_id") for entry in fresh)
        found.extend(read_task(entry) for entry in fresh if _name(entry, "task_type") == "cluster_scaleout")
        if not fresh or _all_told(page, len(seen)) or _only_older_follow(entries, now - RECENT):
            break
    return tuple(found)


def read_task(answer: object, task_id: str | None = None) -> Task:
    """One task.

    Args:
        answer: the task itself, or an entry of a cluster's list.
        task_id: what was asked for, where that is known: the answer need not repeat it.

    Raises:
        Malformed: it is another task's, or tells no state.
    """
    told = _object(answer, "the task")
    said_id = told.get("task_id", task_id)
    if not isinstance(said_id, str) or not said_id or (task_id is not None and said_id != task_id):
        raise Malformed(f"the task's task_id is {_short(said_id)}")
    named = _instances_by_fate(told.get("task_result"))
    return Task(
        task_id=said_id,
        state=_fate(_name(told, "state")),
        created_at=_instant(told.get("created")),
        succeeded=named[TaskState.SUCCESS],
        failed=named[TaskState.FAILED],
        pending=named[TaskState.RUNNING],
        error=_error(told.get("error")),
    )


def read_cluster(answer: object, node_quota: int | None) -> Cluster:
    """A cluster itself.

    Raises:
        Malformed: it tells no state or size.
    """
    told = _object(answer, "the cluster")
    profile = told.get("profile")
    return Cluster(
        state=_name(told, "state"),
        profile=profile if isinstance(profile, str) else "",
        size=_number(told, "size"),
        node_quota=node_quota,
    )


def read_quota(answer: object) -> int | None:
    """Most nodes that a cluster of the account may have; None: not told."""
    told = answer.get("node_quota") if isinstance(answer, dict) else None
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _node(entry: object) -> Node | None:
    told = _object(entry, "a node")
    status = told.get("node_status")
    ready = isinstance(status, str) and status.split(",")[0].strip() == "Ready"  # "Ready,SchedulingDisabled" is
    if not told.get("instance_id") and not ready:
        # A machine on its way that has no id yet is counted by the purchase that asked for it.
        return None
    instance_type = told.get("instance_type")
    if not isinstance(instance_type, str):  # '' is that of a machine which a person joined
        raise Malformed(f"a node's instance_type is {_short(instance_type)}")
    state = told.get("state")
    return Node(
        instance_id=_name(told, "instance_id"),
        instance_type=instance_type,
        role=_name(told, "instance_role").capitalize(),
        ready=ready,
        state=state if isinstance(state, str) else "",
        created_at=_instant(told.get("creation_time")),
        expires_at=_instant(told.get("expired_time")),
    )


def _fate(word: str) -> TaskState:
    return _TASK_STATES.get(word.lower(), TaskState.RUNNING)


def _instances_by_fate(results: object) -> dict[TaskState, tuple[str, ...]]:
    """The instance ids of a task's results, each once: what came counts before what did not, that before the rest."""
    named: dict[TaskState, list[str]] = {TaskState.SUCCESS: [], TaskState.FAILED: [], TaskState.RUNNING: []}
    for result in results if isinstance(results, list) else ():
        if isinstance(result, dict) and isinstance(result.get("data"), str) and result["data"]:
            named[_fate(str(result.get("status")))].append(result["data"])
    told: set[str] = set()
    once: dict[TaskState, tuple[str, ...]] = {}
    for fate, instances in named.items():
        once[fate] = tuple(instance for instance in dict.fromkeys(instances) if instance not in told)
        told.update(instances)
    return once


def _all_told(page: Mapping[str, object], seen: int) -> bool:
    info = page.get("page_info")
    total = info.get("total_count") if isinstance(info, dict) else None
    return isinstance(total, int) and seen >= total


def _only_older_follow(entries: list[Mapping[str, object]], before: datetime) -> bool:
    created = [at for entry in entries if (at := _instant(entry.get("created"))) is not None]
    newest_first = (
        len(created) == len(entries) and created == sorted(created, reverse=True) and created[0] > created[-1]
    )
    return newest_first and created[-1] < before


def _error(told: object) -> str | None:
    if not isinstance(told, dict):
        return None
    parts = (told.get("code"), told.get("message"))
    return one_line(": ".join(part for part in parts if isinstance(part, str) and part)) or None


def _object(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise Malformed(f"{what} is {_short(value)}, not an object")
    return value


def _list(page: Mapping[str, object], name: str) -> list[object]:
    if name not in page:
        raise Malformed(f"{name} is missing")
    value = page[name]
    if value is None:  # how Go writes an empty list
        return []
    if not isinstance(value, list):
        raise Malformed(f"{name} is {_short(value)}, not a list")
    return value


def _number(told: Mapping[str, object], name: str) -> int:
    value = told.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Malformed(f"{name} is {_short(value)}, not a number")
    return value


def _name(told: Mapping[str, object], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not value:
        raise Malformed(f"{name} is {_short(value)}, not a name")
    return value


def _short(value: object) -> str:
    return one_line(repr(value))[:60]


def _instant(value: object) -> datetime | None:
    """An instant in UTC; None: absent, without a zone, or the year 1 by which Go writes "never"."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo is not None and at.year >= 1970 else None
    except (ValueError, OverflowError):
        return None
