"""Simulation: the live rules over recorded load, a ledger in lists, and a clock that is a loop."""

from autoscaler.simulation.engine import Progress, evaluations, simulate
from autoscaler.simulation.load import Load, carried, exact
from autoscaler.simulation.market import (
    FOREIGN,
    HONEST,
    CapacityFault,
    ClusterFault,
    Fate,
    Fault,
    JoinDelay,
    Market,
    PurchaseFault,
    ReadingFault,
    WorkerFault,
)
from autoscaler.simulation.result import Level, Simulation, Tenure
from autoscaler.simulation.spans import Span, Spans

__all__ = [
    "FOREIGN",
    "HONEST",
    "CapacityFault",
    "ClusterFault",
    "Fate",
    "Fault",
    "JoinDelay",
    "Level",
    "Load",
    "Market",
    "Progress",
    "PurchaseFault",
    "ReadingFault",
    "Simulation",
    "Span",
    "Spans",
    "Tenure",
    "WorkerFault",
    "carried",
    "evaluations",
    "exact",
    "simulate",
]
