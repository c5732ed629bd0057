"""Signatures, compared with those of the official library and of Alibaba's own page."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from autoscaler.signing import Credential, canonical_query, sign

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "signature_vectors.json").read_text())
CREDENTIAL = Credential(VECTORS["access_key_id"], SecretStr(VECTORS["access_key_secret"]))
AT = datetime(2023, 10, 26, 10, 22, 32, tzinfo=UTC)
NONCE = "3156853299f313e23d1673dc12e1703d"
HOST = "cs.cn-beijing.aliyuncs.com"


def signed(**changes: Any) -> dict[str, str]:
    call: dict[str, Any] = {
        "method": "GET",
        "path": "/clusters/c1",
        "query": {},
        "body": None,
        "host": HOST,
        "action": "DescribeClusterDetail",
        "credential": CREDENTIAL,
        "nonce": NONCE,
        "at": AT,
    }
    return sign(**{**call, **changes})


@pytest.mark.parametrize("name", ["acs3_scaleout", "acs3_nodes"])
def test_signs_as_the_official_library_does(name: str) -> None:
    vector = VECTORS["vectors"][name]
    headers = sign(
        vector["method"],
        vector["pathname"],
        vector["query"],
        vector["body"].encode() if vector["body"] is not None else None,
        host=vector["headers"]["host"],
        action=vector["headers"]["x-acs-action"],
        credential=CREDENTIAL,
        nonce=vector["headers"]["x-acs-signature-nonce"],
        at=datetime.fromisoformat(vector["headers"]["x-acs-date"]),
    )
    assert headers == {**vector["headers"], "authorization": vector["authorization"]}


def test_signs_as_the_published_example_does() -> None:
    example = VECTORS["published"]
    headers = sign(
        example["method"],
        example["path"],
        example["query"],
        None,
        host=example["host"],
        action=example["action"],
        credential=Credential(example["access_key_id"], SecretStr(example["access_key_secret"])),
        nonce=example["x-acs-signature-nonce"],
        at=datetime.fromisoformat(example["x-acs-date"]),
        version=example["version"],
    )
    assert headers["authorization"].endswith(f"Signature={example['signature']}")


def test_a_temporary_credential_signs_its_id_and_token_too() -> None:
    headers = signed(credential=Credential("STS.id", SecretStr("secret"), SecretStr("the-token")))
    assert headers["x-acs-accesskey-id"] == "STS.id"
    assert headers["x-acs-security-token"] == "the-token"
    assert "x-acs-accesskey-id;x-acs-action;" in headers["authorization"]
    assert "x-acs-security-token;x-acs-signature-nonce" in headers["authorization"]


def test_a_time_of_another_zone_is_signed_as_utc() -> None:
    east = timezone(timedelta(hours=8))
    assert signed(at=AT.astimezone(east)) == signed(at=AT)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        pytest.param({}, "", id="none is empty"),
        pytest.param({"b": "2", "a": "1"}, "a=1&b=2", id="sorted by name"),
        pytest.param({"q": "a b~c/d+é"}, "q=a%20b~c%2Fd%2B%C3%A9", id="RFC 3986, the tilde left alone"),
        pytest.param({"empty": ""}, "empty=", id="an empty value keeps its equals sign"),
    ],
)
def test_the_query_is_canonical(query: dict[str, str], text: str) -> None:
    assert canonical_query(query) == text


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"method": "POST"}, id="method"),
        pytest.param({"path": "/clusters/c2"}, id="path"),
        pytest.param({"query": {"a": "1"}}, id="query"),
        pytest.param({"body": b""}, id="an empty body is not no body"),
        pytest.param({"host": "other"}, id="host"),
        pytest.param({"action": "Other"}, id="action"),
        pytest.param({"nonce": "other"}, id="nonce"),
        pytest.param({"at": AT + timedelta(seconds=1)}, id="time"),
    ],
)
def test_everything_sent_is_signed(change: dict[str, Any]) -> None:
    assert signed(**change)["authorization"] != signed()["authorization"]


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_two_bodies_have_one_signature_only_if_they_are_the_same(one: bytes, other: bytes) -> None:
    same = signed(method="POST", body=one)["authorization"] == signed(method="POST", body=other)["authorization"]
    assert same == (one == other)


def test_a_fingerprint_tells_keys_and_secrets_apart_but_no_tokens() -> None:
    mended = Credential(CREDENTIAL.access_key_id, SecretStr("another"))
    rotated = Credential(CREDENTIAL.access_key_id, CREDENTIAL.access_key_secret, SecretStr("a-token"))
    assert mended.fingerprint != CREDENTIAL.fingerprint
    assert rotated.fingerprint == CREDENTIAL.fingerprint
    assert Credential("other", CREDENTIAL.access_key_secret).fingerprint != CREDENTIAL.fingerprint
    assert len(CREDENTIAL.fingerprint) == 12


def test_a_credential_does_not_show_its_secrets() -> None:
    credential = Credential("id", SecretStr("the-secret"), SecretStr("the-token"))
    assert "the-secret" not in repr(credential)
    assert "the-token" not in repr(credential)
