"""The policies in force as files come, break, change and go."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from structlog.testing import capture_logs

from autoscaler.catalog import Catalog

POLICY = """\
cluster_id: {cluster}
dry_run: false
worker:
  worker_instance_type: ens.sn1.tiny
  ens_region_id: {region}
  worker_image_id: m-2QVLO2T8NYgm8CNQVg15gF
  ens_internet_charge_type: BandwidthByDay
  worker_period: 1
  worker_system_disk_size: 20
  login_password: {{env: EDGE_LOGIN_PASSWORD}}
limits: {{maximum: {maximum}, per_action: 5, budgets: [{{workers: 10, per: 24h}}]}}
{more}
"""
BROKEN = "cluster_id: [\n"
SHARED = """\
prometheus:
  far: {url: "https://prometheus.example.com"}
"""


class Folder:
    """A folder of policy files."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def policy(self, name: str, *, cluster: str = "C1", region: str = "r1", maximum: int = 9, more: str = "") -> None:
        self.write(f"{name}.yaml", POLICY.format(cluster=cluster, region=region, maximum=maximum, more=dedent(more)))

    def remove(self, name: str) -> None:
        (self.path / name).unlink()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "policies").mkdir()
    return Folder(tmp_path / "policies")


@pytest.fixture
def catalog(folder: Folder) -> Catalog:
    return Catalog(folder.path, dry_run=False)


@pytest.fixture(autouse=True)
def logs() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def reload(catalog: Catalog) -> dict[str, int]:
    """Policies in force, and the maximum that tells one version from another."""
    return {policy.name: policy.limits.maximum for policy in catalog.reload()}


def kept(logs: list[Any]) -> list[tuple[str, list[str], list[str]]]:
    told = [entry for entry in logs if entry["event"] == "policies.kept"]
    return [(Path(entry["file"]).name, entry["policies"], entry["dropped"]) for entry in told]


def test_files_that_are_in_order_are_in_force_by_name(folder: Folder, catalog: Catalog) -> None:
    folder.policy("b", cluster="C2")
    folder.policy("a")
    assert list(reload(catalog)) == ["a", "b"]
    assert catalog.errors == ()


def test_a_broken_file_keeps_its_last_good_policies_and_says_so(
    folder: Folder, catalog: Catalog, logs: list[Any]
) -> None:
    folder.policy("a", maximum=9)
    folder.policy("b", cluster="C2", maximum=9)
    reload(catalog)
    folder.write("a.yaml", BROKEN)
    folder.policy("b", cluster="C2", maximum=12)
    for _ in range(2):
        logs.clear()
        assert reload(catalog) == {"a": 9, "b": 12}
        assert kept(logs) == [("a.yaml", ["a"], [])]
        assert [Path(problem.file).name for problem in catalog.errors] == ["a.yaml"]
    folder.policy("a", maximum=20)
    assert reload(catalog) == {"a": 20, "b": 12}
    assert catalog.errors == ()


def test_a_file_that_never_was_in_order_gives_nothing(folder: Folder, catalog: Catalog) -> None:
    folder.write("a.yaml", BROKEN)
    folder.policy("b", cluster="C2")
    assert reload(catalog) == {"b": 9}


def test_a_file_that_is_removed_is_gone_broken_or_not(folder: Folder, catalog: Catalog) -> None:
    folder.policy("a")
    folder.policy("b", cluster="C2")
    reload(catalog)
    folder.write("b.yaml", BROKEN)
    reload(catalog)
    folder.remove("a.yaml")
    folder.remove("b.yaml")
    assert reload(catalog) == {}


def test_a_folder_that_is_gone_keeps_everything(folder: Folder, catalog: Catalog) -> None:
    folder.policy("a")
    reload(catalog)
    folder.path.rename(folder.path.with_name("elsewhere"))
    assert reload(catalog) == {"a": 9}
    assert catalog.errors


def test_a_broken_shared_file_keeps_every_policy_and_server(folder: Folder, catalog: Catalog) -> None:
    folder.write("_shared.yaml", SHARED)
    folder.policy("a", more="prometheus: far")
    reload(catalog)
    folder.write("_shared.yaml", BROKEN)
    folder.policy("a", maximum=30, more="prometheus: far")
    folder.policy("new", cluster="C2")
    assert reload(catalog) == {"a": 9}
    assert list(catalog.servers) == ["far"]
    folder.write("_shared.yaml", SHARED)
    assert reload(catalog) == {"a": 30, "new": 9}


def test_a_broken_policy_keeps_no_server_from_changing(folder: Folder, catalog: Catalog) -> None:
    folder.write("_shared.yaml", SHARED)
    folder.policy("a")
    reload(catalog)
    folder.write("a.yaml", BROKEN)
    folder.write("_shared.yaml", SHARED.replace("far", "near"))
    reload(catalog)
    assert list(catalog.servers) == ["near"]


def test_a_server_that_a_kept_policy_asks_is_kept_with_it(folder: Folder, catalog: Catalog) -> None:
    folder.write("_shared.yaml", SHARED)
    folder.policy("a", more="prometheus: far")
    reload(catalog)
    folder.remove("_shared.yaml")  # now a names a server that nobody describes
    assert reload(catalog) == {"a": 9}
    assert list(catalog.servers) == ["far"]


def test_a_kept_policy_that_clashes_with_a_new_one_is_dropped_and_comes_back(
    folder: Folder, catalog: Catalog, logs: list[Any]
) -> None:
    folder.policy("a", cluster="C1", region="r1")
    folder.policy("other", cluster="C2")
    reload(catalog)
    folder.write("a.yaml", BROKEN)
    folder.write("other.yaml", BROKEN)
    folder.policy("b", cluster="C1", region="r1")
    logs.clear()
    assert list(reload(catalog)) == ["b", "other"]
    assert kept(logs) == [("a.yaml", [], ["a"]), ("other.yaml", ["other"], [])]
    folder.remove("b.yaml")
    assert list(reload(catalog)) == ["a", "other"]


def test_a_new_policy_that_would_need_a_query_beside_a_kept_one_wins(folder: Folder, catalog: Catalog) -> None:
    folder.policy("a", region="r1", more="capacity: {query: sum(ready)}")
    reload(catalog)
    folder.write("a.yaml", BROKEN)
    folder.policy("b", region="r2")
    assert list(reload(catalog)) == ["b"]


def test_a_name_that_another_file_has_taken_over_is_not_kept_twice(folder: Folder, catalog: Catalog) -> None:
    folder.policy("edge-a")
    reload(catalog)
    folder.write("edge-a.yaml", BROKEN)
    folder.policy("edge", cluster="${cluster}", more="each: [{name: a, cluster: C7}]")
    assert list(reload(catalog)) == ["edge-a"]
    assert catalog.policies[0].cluster_id == "C7"


def test_the_setting_makes_every_policy_a_dry_run(folder: Folder) -> None:
    folder.policy("a")
    (dry,) = Catalog(folder.path, dry_run=True).reload()
    (live,) = Catalog(folder.path, dry_run=False).reload()
    assert (dry.dry_run, live.dry_run) == (True, False)
    assert dry.version != live.version
