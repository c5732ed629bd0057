"""Fixtures that start real outside systems.

A missing binary skips its tests loudly on a laptop and fails them where ``CI`` is set: there, a skipped system test
is a hole that nobody would see.
"""

import os
from collections.abc import Iterator

import pytest

from tests.system.prometheus_server import PrometheusServer, binary


@pytest.fixture(scope="session")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A running Prometheus, shared by the whole run: give each test its own metric names."""
    if binary() is None:
        missing("prometheus", "apt-get install --no-install-recommends prometheus")
    with PrometheusServer(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def fresh_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    """A running Prometheus of one module's own. A month of history before anything else is in order; after samples of
    now it is not, and then a range query takes Prometheus minutes.
    """
    if binary() is None:
        missing("prometheus", "apt-get install --no-install-recommends prometheus")
    with PrometheusServer(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def missing(what: str, mend: str) -> None:
    """End the test: failed where ``CI`` is set, else skipped with the command that would let it run."""
    message = f"{what} is not on this machine: {mend}"
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(message)
    pytest.skip(message)
