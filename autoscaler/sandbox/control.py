"""Steers a sandbox in another process: ``/_sandbox/…`` on the sandbox's own port, JSON both ways.

``GET orders``, ``requests``, ``clusters`` and ``unused`` show; each ``POST`` is a method of ``SandboxCloud`` with the
same arguments, durations as seconds or ISO 8601. A fault names itself by ``kind``.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta

from pydantic import ConfigDict, TypeAdapter, ValidationError, validate_call
from pydantic_core import from_json

from autoscaler.sandbox.cloud import SandboxCloud
from autoscaler.sandbox.refusals import Refusal
from autoscaler.sandbox.wire import Reply, Request

_ANYTHING: TypeAdapter[object] = TypeAdapter(object)


class Control:
    """Answers the requests that steer ``cloud``: 200 with what was asked for, 400 with ``{"error"}``."""

    def __init__(self, cloud: SandboxCloud) -> None:
        def clusters() -> dict[str, dict[str, int]]:
            return {cluster_id: {"ready_workers": cloud.ready_workers(cluster_id)} for cluster_id in cloud.clusters}

        def skew(by: timedelta) -> None:
            cloud.skew = by

        self._shows: Mapping[str, Callable[[], object]] = {
            "orders": lambda: cloud.orders,
            "requests": lambda: cloud.requests,
            "clusters": clusters,
            "unused": lambda: cloud.unused,
        }
        self._commands: Mapping[str, Callable[..., object]] = {
            "clusters": cloud.add_cluster,
            "cluster": cloud.set_cluster,
            "lose": cloud.lose,
            "recover": cloud.recover,
            "console": cloud.buy_by_console,
            "fault": cloud.fail_next,
            "standing-fault": cloud.fail_always,
            "fate": cloud.doom_next,
            "heal": cloud.heal,
            "skew": skew,
        }

    def __call__(self, request: Request) -> Reply:
        """Carry out a command or show what is asked for."""
        name = "/".join(request.segments[1:])
        if request.method == "GET" and name in self._shows:
            return _reply(200, self._shows[name]())
        if request.method != "POST" or name not in self._commands:
            return _reply(404, {"error": f"GET {', '.join(self._shows)}; POST {', '.join(self._commands)}"})
        command = validate_call(config=ConfigDict(extra="forbid"))(self._commands[name])
        try:
            return _reply(200, command(**from_json(request.body or b"{}")))
        except (ValidationError, Refusal, ValueError, TypeError) as error:
            return _reply(400, {"error": str(error)})


def _reply(status: int, document: object) -> Reply:
    return Reply(status, _ANYTHING.dump_json(document))
