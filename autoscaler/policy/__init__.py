"""Policies: what an operator's files say, as values that decisions are made from.

`values`, `checks` and the parts they are made of are the schema; `files` loads a folder of them, through `document`,
`each` and `words`, so that every problem names its line; `review` judges policies beside each other.
"""

from autoscaler.policy.checks import Check, PerWorker, Schedule, Setpoint, Step, Steps, Window
from autoscaler.policy.secret import SecretReference, password_problem
from autoscaler.policy.server import PrometheusServer
from autoscaler.policy.values import Budget, CapacityQuery, Headroom, Limits, Policy, WorkerSpec

__all__ = [
    "Budget",
    "CapacityQuery",
    "Check",
    "Headroom",
    "Limits",
    "PerWorker",
    "Policy",
    "PrometheusServer",
    "Schedule",
    "SecretReference",
    "Setpoint",
    "Step",
    "Steps",
    "Window",
    "WorkerSpec",
    "password_problem",
]
