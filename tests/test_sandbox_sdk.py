"""The official SDK drives the sandbox: what the cloud's own client signs and sends is accepted, and nothing else is."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from autoscaler.sandbox import TEST_CREDENTIALS, SandboxCloud, throttled

pytest.importorskip("alibabacloud_tea_openapi", reason="the official SDK alibabacloud-tea-openapi is not installed")

from alibabacloud_tea_openapi.client import Client  # type: ignore[import-untyped]  # it ships no types
from alibabacloud_tea_openapi.utils_models import Config, OpenApiRequest, Params  # type: ignore[import-untyped]  # it ships no types
from darabonba.exceptions import DaraException  # type: ignore[import-untyped]  # it ships no types
from darabonba.runtime import RuntimeOptions  # type: ignore[import-untyped]  # it ships no types

CLUSTER = "Cccfd68c474454665ace07efce924ab12"
KEY_ID, KEY_SECRET = next(iter(TEST_CREDENTIALS.items()))
ORDER = {
    "timeout_mins": 60,
    "worker_instance_type": "ens.sn1.tiny",
    "ens_region_id": "cn-beijing-telecom",
    "worker_image_id": "m-2QVLO2T8NYgm8CNQVg15gF",
    "ens_internet_charge_type": "BandwidthByDay",
    "worker_period": 1,
    "login_password": "Hello1234!",
    "count": 2,
    "worker_system_disk_size": 20,
    "is_edge_worker": True,
}


@pytest.fixture
def cloud() -> Iterator[SandboxCloud]:
    with SandboxCloud(join_delay=timedelta(0)) as cloud:
        cloud.add_cluster(CLUSTER, workers=12)
        yield cloud


def call(
    cloud: SandboxCloud,
    action: str,
    method: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    query: dict[str, str] | None = None,
    secret: str = KEY_SECRET,
    token: str | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and body of the SDK's generic call."""
    config = Config(
        access_key_id=KEY_ID,
        access_key_secret=secret,
        security_token=token,
        type="access_key" if token is None else "sts",
        endpoint=cloud.url.removeprefix("http://"),
        protocol="HTTP",
    )
    params = Params(
        action=action,
        version="2015-12-15",
        protocol="HTTP",
        method=method,
        auth_type="AK",
        style="ROA",
        pathname=path,
        req_body_type="json",
        body_type="json",
    )
    answer = Client(config).call_api(params, OpenApiRequest(body=body, query=query), RuntimeOptions())
    return answer["statusCode"], answer["body"]


def test_the_sdk_buys_workers(cloud: SandboxCloud) -> None:
    status, body = call(cloud, "ScaleOutCluster", "POST", f"/api/v2/clusters/{CLUSTER}", body=ORDER)
    [order] = cloud.orders
    assert (status, body["task_id"], order.count) == (202, order.task_id, 2)
    _, task = call(cloud, "DescribeTaskInfo", "GET", f"/tasks/{order.task_id}")
    assert task["state"] == "success"
    assert [each["data"] for each in task["task_result"]] == list(order.instance_ids)


def test_the_sdk_lists_nodes_page_by_page(cloud: SandboxCloud) -> None:
    path = f"/clusters/{CLUSTER}/nodes"
    query = {"state": "all", "pageNumber": "2", "pageSize": "10"}
    status, body = call(cloud, "DescribeClusterNodes", "GET", path, query=query)
    assert (status, len(body["nodes"])) == (200, 2)
    assert body["page"] == {"page_number": 2, "page_size": 10, "total_count": 12}


@pytest.mark.parametrize(
    ("action", "path", "field"),
    [
        ("DescribeClusterDetail", f"/clusters/{CLUSTER}", "profile"),
        ("DescribeClusterTasks", f"/clusters/{CLUSTER}/tasks", "tasks"),
        ("DescribeUserQuota", "/quota", "node_quota"),
    ],
)
def test_the_sdk_reads_everything_else(cloud: SandboxCloud, action: str, path: str, field: str) -> None:
    status, body = call(cloud, action, "GET", path)
    assert (status, field in body) == (200, True)


def test_the_sdk_signs_a_temporary_credential(cloud: SandboxCloud) -> None:
    cloud.security_tokens[KEY_ID] = "a-token"
    assert call(cloud, "DescribeUserQuota", "GET", "/quota", token="a-token")[0] == 200
    with pytest.raises(DaraException, match="SecurityToken"):
        call(cloud, "DescribeUserQuota", "GET", "/quota", token="another-token")


def test_the_sdk_understands_a_refusal(cloud: SandboxCloud) -> None:
    with pytest.raises(DaraException) as refused:
        call(cloud, "ScaleOutCluster", "POST", f"/api/v2/clusters/{CLUSTER}", body=ORDER, secret="wrong")
    assert refused.value.code == "SignatureDoesNotMatch"
    cloud.fail_next(throttled(429))
    with pytest.raises(DaraException) as throttle:
        call(cloud, "ScaleOutCluster", "POST", f"/api/v2/clusters/{CLUSTER}", body=ORDER)
    assert throttle.value.code == "Throttling.User"
    assert cloud.orders == []
