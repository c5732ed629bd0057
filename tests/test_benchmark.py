"""The benchmark goes on working: a row of it over a day, and what its plain loop buys beside the simulation."""

import importlib.util
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest

from autoscaler.simulation import simulate

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "simulation.py"
A_DAY = Namespace(load=None, days=1)


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", ["year", "worst case", "recording"])
def test_a_row_is_measured(benchmark: ModuleType, kind: str, tmp_path: Path) -> None:
    recording = tmp_path / "load.csv"
    recording.write_text("unix_seconds,value\n" + "".join(f"{60 * n},{n % 97}\n" for n in range(300)))
    row = benchmark.measured("edge-sites-chengdu", kind, Namespace(load=str(recording), days=1))
    ticks = "300" if kind == "recording" else "1,440"
    assert row.split()[: 2 + (kind == "worst case")] == ["edge-sites-chengdu", *kind.split()]
    assert ticks in row.split()


def test_the_plain_loop_does_the_same_arithmetic(benchmark: ModuleType) -> None:
    policies = benchmark.load_policies(benchmark.POLICIES).policies
    policy = next(policy for policy in policies if policy.name == "edge-sites-shenzhen")
    policy = policy.model_copy(update={"limits": policy.limits.model_copy(update={"budgets": ()})})
    load = benchmark._load(policy, "year", A_DAY)
    bought = sum(purchase.asked for purchase in simulate(policy, load, ready=4).purchases)
    assert benchmark.plain(policy, load, 4) == bought > 0
