"""A local outside world for the demo and the tests: an edge cloud that sells, and a Prometheus that replays load.

Both listen on loopback, need no root and no service, and misbehave on request.
"""

from autoscaler.sandbox.cloud import TEST_CREDENTIALS, SandboxCloud
from autoscaler.sandbox.faults import Answer, Cut, Dripping, Fate, Fault, Late, Listing, Truncated, throttled
from autoscaler.sandbox.gateway import LoggedRequest
from autoscaler.sandbox.prometheus import DataFault, ReplayedPrometheus
from autoscaler.sandbox.recording import recorded_load, replayed
from autoscaler.sandbox.refusals import Shape
from autoscaler.sandbox.world import Order

__all__ = [
    "TEST_CREDENTIALS",
    "Answer",
    "Cut",
    "DataFault",
    "Dripping",
    "Fate",
    "Fault",
    "Late",
    "Listing",
    "LoggedRequest",
    "Order",
    "ReplayedPrometheus",
    "SandboxCloud",
    "Shape",
    "Truncated",
    "recorded_load",
    "replayed",
    "throttled",
]
