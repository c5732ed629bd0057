"""What holds for every test: nothing of the developer's surroundings, the same examples each time, no silent gaps.

A test that cannot run here skips itself and says why. On a laptop the reason is printed at the end; with ``CI=true``
the skip is a failure, because a test left out silently protects nothing.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

from tests.ledger_forms import Clock, Handles, InPostgres, Ledger, in_lists, in_sqlite
from tests.system.postgres_server import PostgresServer, binaries

# A run repeats the run before it; `pytest --hypothesis-profile=explore` goes looking for new examples.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=False)
hypothesis.settings.register_profile("explore", max_examples=5_000, deadline=None)
hypothesis.settings.load_profile("repeatable")

# A developer's own settings, credentials and proxies must not reach a test, nor a process that a test starts.
for _name in list(os.environ):
    if _name.upper().startswith(("AUTOSCALER_", "ALIBABA_CLOUD_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")):
        del os.environ[_name]

_Report = TypeVar("_Report", pytest.TestReport, pytest.CollectReport)
_IN_CI = os.environ.get("CI", "").lower() == "true"


def _refuse_skip(report: _Report) -> _Report:
    if _IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"left out, which fails with CI=true: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refuse_skip((yield))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A running PostgreSQL, shared by the whole run: each test takes a database of its own."""
    if binaries() is None:
        pytest.skip("PostgreSQL is not on this machine: apt-get install --no-install-recommends postgresql")
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def in_postgres(postgres: PostgresServer) -> Iterator[InPostgres]:
    """One database for all tests of the contract that every form of the ledger keeps."""
    form = InPostgres(postgres)
    yield form
    form.close()


@pytest.fixture
def clock() -> Clock:
    """The clock that rules the leases of ``handles``."""
    return Clock()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system), "memory"])
def handles(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Handles]:
    """Two handles on one empty ledger, in each form in turn."""
    if request.param == "postgresql":
        yield request.getfixturevalue("in_postgres").empty(clock)
    elif request.param == "memory":
        yield in_lists(clock)
    else:
        with in_sqlite(tmp_path / "ledger.db", clock) as both:
            yield both


@pytest.fixture
def ledger(handles: Handles) -> Ledger:
    """One handle on an empty ledger, in each form in turn."""
    return handles[0]
