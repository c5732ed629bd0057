"""Simulation: the live rules over recorded load, a ledger in lists, and a clock that is a loop."""

from autoscaler.simulation.engine import Progress, evaluations, simulate
from autoscaler.simulation.figures import Figures, Held, Shortage, figures, needed
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
from autoscaler.simulation.optimum import Optimum, OptimumUnavailable, optimum
from autoscaler.simulation.result import Level, Simulation, Tenure
from autoscaler.simulation.spans import Span, Spans

__all__ = [
    "FOREIGN",
    "HONEST",
    "CapacityFault",
    "ClusterFault",
    "Fate",
    "Fault",
    "Figures",
    "Held",
    "JoinDelay",
    "Level",
    "Load",
    "Market",
    "Optimum",
    "OptimumUnavailable",
    "Progress",
    "PurchaseFault",
    "ReadingFault",
    "Shortage",
    "Simulation",
    "Span",
    "Spans",
    "Tenure",
    "WorkerFault",
    "carried",
    "evaluations",
    "exact",
    "figures",
    "needed",
    "optimum",
    "simulate",
]
