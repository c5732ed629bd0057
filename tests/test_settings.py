from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from autoscaler.setting_values import Address
from autoscaler.settings import Settings, SettingsError, describe_settings, load_settings

TOKEN = "0123456789abcdef"
HUSH = "hush-hush"


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert HUSH not in f"{caught.value} {caught.value!r} {caught.value.problems!r}"
    # What is chained is printed with a traceback.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return [str(problem) for problem in caught.value.problems]


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings({})
    assert settings.policies == Path("policies")
    assert settings.prometheus_url == "http://127.0.0.1:9090"
    assert settings.prometheus_timeout == timedelta(seconds=5)
    assert settings.ledger().get_secret_value() == "sqlite:///autoscaler.db"
    assert settings.cloud_endpoint == "https://cs.aliyuncs.com"
    assert settings.cloud_timeout == timedelta(seconds=60)
    assert settings.listen == Address("127.0.0.1", 8080)
    assert settings.api_tokens is None
    assert settings.api_reads == "open"
    assert settings.dry_run is False
    assert settings.retention == timedelta(days=90)
    assert settings.log_format is None
    assert settings.log_level == "info"
    assert settings.access_key_id is None


def test_the_process_environment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOSCALER_DRY_RUN", "true")
    assert load_settings({}).dry_run is False


def test_settings_are_frozen() -> None:
    settings = load_settings({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.dry_run = True


def test_everything_can_be_given(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.write_text("-")
    settings = load_settings(
        {
            "AUTOSCALER_POLICIES": "/etc/autoscaler/policies",
            "AUTOSCALER_PROMETHEUS_URL": "https://prometheus.example/prefix/",
            "AUTOSCALER_PROMETHEUS_USERNAME": "anna",
            "AUTOSCALER_PROMETHEUS_PASSWORD": HUSH,
            "AUTOSCALER_PROMETHEUS_CA": str(pem),
            "AUTOSCALER_PROMETHEUS_CERT": str(pem),
            "AUTOSCALER_PROMETHEUS_KEY": str(pem),
            "AUTOSCALER_PROMETHEUS_TIMEOUT": "1m30s",
            "AUTOSCALER_LEDGER": f"postgresql+psycopg://autoscaler:{HUSH}@db/autoscaler",
            "AUTOSCALER_CLOUD_ENDPOINT": "https://cs.cn-beijing.aliyuncs.com/",
            "AUTOSCALER_CLOUD_TIMEOUT": "2m",
            "AUTOSCALER_LISTEN": "[::]:80",
            "AUTOSCALER_API_TOKENS": f"anna={TOKEN}",
            "AUTOSCALER_API_READS": "token",
            "AUTOSCALER_DRY_RUN": "TRUE",
            "AUTOSCALER_RETENTION": "2w",
            "AUTOSCALER_LOG_FORMAT": "console",
            "AUTOSCALER_LOG_LEVEL": "Debug",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": "id",
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": HUSH,
            "ALIBABA_CLOUD_SECURITY_TOKEN": HUSH,
        }
    )
    assert settings.prometheus_url == "https://prometheus.example/prefix"
    assert settings.prometheus_password is not None
    assert settings.prometheus_password().get_secret_value() == HUSH
    assert settings.prometheus_ca == pem
    assert settings.prometheus_timeout == timedelta(seconds=90)
    assert settings.cloud_endpoint == "https://cs.cn-beijing.aliyuncs.com"
    assert str(settings.listen) == "[::]:80"
    assert (settings.dry_run, settings.api_reads, settings.log_level) == (True, "token", "debug")
    assert settings.security_token is not None
    assert settings.security_token().get_secret_value() == HUSH
    assert HUSH not in f"{settings} {settings!r}"
    assert TOKEN not in f"{settings} {settings!r}"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        pytest.param("AUTOSCALER_DRY_RUN", "ture", "is neither true nor false", id="a slip of the pen buys nothing"),
        pytest.param("AUTOSCALER_DRY_RUN", "1", "is neither true nor false", id="one word for yes"),
        pytest.param("AUTOSCALER_DRY_RUN", "", "is empty", id="an unset variable of a shell is not false"),
        pytest.param("AUTOSCALER_RETENTION", "90 days", "is not a duration", id="a duration in words"),
        pytest.param("AUTOSCALER_RETENTION", "0s", "is not more than zero", id="keep nothing"),
        pytest.param("AUTOSCALER_CLOUD_TIMEOUT", "60", "is not a duration", id="a duration without a unit"),
        pytest.param("AUTOSCALER_LOG_LEVEL", HUSH, "is none of its values", id="an unknown level"),
        pytest.param("AUTOSCALER_LOG_FORMAT", "xml", "write json or console", id="an unknown format"),
        pytest.param("AUTOSCALER_PROMETHEUS_CA", "/nowhere/ca.pem", "there is no such file", id="a missing file"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", "prometheus:9090", "is not an http", id="no scheme"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", "http://:9090", "is not an http", id="no host"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", "http://p:x", "is not a URL", id="a port that is no number"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", "http://p/?a=b", "has a query", id="a query"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", "http://p \n", "has blanks", id="blanks"),
        pytest.param("AUTOSCALER_PROMETHEUS_URL", f"http://u:{HUSH}@p", "user name or password", id="a password in it"),
        pytest.param("AUTOSCALER_CLOUD_ENDPOINT", "https://cs.aliyuncs.com/api/v2", "has a path", id="a path"),
        pytest.param("AUTOSCALER_CLOUD_ENDPOINT", "http://cs.aliyuncs.com", "in clear", id="the cloud without TLS"),
        pytest.param("AUTOSCALER_CLOUD_ENDPOINT", "http://10.0.0.7", "in clear", id="another machine without TLS"),
        pytest.param("AUTOSCALER_LISTEN", "8080", "is not host:port", id="only a port"),
        pytest.param("AUTOSCALER_LISTEN", ":8080", "is not host:port", id="no host to listen on"),
        pytest.param("AUTOSCALER_LISTEN", "::1:8080", "is not host:port", id="IPv6 without brackets"),
        pytest.param("AUTOSCALER_LISTEN", "http://0.0.0.0:8080", "is not host:port", id="a URL to listen on"),
        pytest.param("AUTOSCALER_LISTEN", "0.0.0.0:70000", "its port is not", id="a port too high"),
        pytest.param("AUTOSCALER_LISTEN", "0.0.0.0:http", "its port is not", id="a port by name"),
        pytest.param("AUTOSCALER_LEDGER", f"postgresql://u:{HUSH}@h/d", "is no ledger", id="another driver"),
        pytest.param("AUTOSCALER_LEDGER", "autoscaler.db", "is no ledger", id="a bare path"),
        pytest.param("AUTOSCALER_LEDGER", "sqlite://", "is not a file", id="SQLite in memory"),
        pytest.param("AUTOSCALER_LEDGER", "sqlite:///:memory:", "is not a file", id="SQLite in memory, by name"),
        pytest.param("AUTOSCALER_PROMETHEUS_TOKEN", f"{HUSH} x", "is not a bearer token", id="a token with a blank"),
        pytest.param("AUTOSCALER_PROMETHEUS_TOKEN", f"{HUSH}\nx", "is not one line", id="a token of two lines"),
        pytest.param("AUTOSCALER_PROMETHEUS_TOKEN_FILE", "/nowhere", "its file cannot be read: No such", id="no file"),
        pytest.param("AUTOSCALER_PROMETHEUS_TOKEN_FILE", HUSH, "its file cannot be read", id="a token as a path"),
        pytest.param("AUTOSCALER_API_TOKENS", TOKEN, "entry 1 does not begin with a name", id="a token without a name"),
        pytest.param("AUTOSCALER_API_TOKENS", "YWJjZGVmZ2g=", "entry 1 is not a bearer", id="padding is not a name"),
        pytest.param("AUTOSCALER_API_TOKENS", f"anna={HUSH}", "shorter than 16", id="a short token"),
        pytest.param("AUTOSCALER_API_TOKENS", f"a={TOKEN},\nb={TOKEN}", "entry 2 is there twice", id="a shared token"),
        pytest.param(
            "AUTOSCALER_API_TOKENS",
            f"a={TOKEN}1,a={TOKEN}2,a={TOKEN}3",
            "entry 3 is its name's third",
            id="a third token",
        ),
        pytest.param("AUTOSCALER_API_TOKENS", ",\n", "holds no token", id="no token at all"),
    ],
)
def test_a_value_is_refused(name: str, value: str, says: str) -> None:
    [problem] = problems({name: value})
    assert problem.startswith(f"{name.removesuffix('_FILE')}: ")
    assert says in problem


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://127.0.0.1:8888", id="a sandbox on loopback"),
        pytest.param("http://[::1]:8888", id="a sandbox on loopback by IPv6"),
        pytest.param("http://localhost:8888", id="a sandbox by name"),
        pytest.param("http://sandbox:8888", id="a sandbox in the next container"),
    ],
)
def test_a_cloud_without_tls_may_be_near(url: str) -> None:
    assert load_settings({"AUTOSCALER_CLOUD_ENDPOINT": url}).cloud_endpoint == url


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param(
            {"AUTOSCALER_POLICY": "x"},
            "AUTOSCALER_POLICY: there is no such setting; write AUTOSCALER_POLICIES",
            id="the nearest is named",
        ),
        pytest.param(
            {"AUTOSCALER_LEGDER_FILE": HUSH},
            "AUTOSCALER_LEGDER_FILE: there is no such setting; write AUTOSCALER_LEDGER_FILE",
            id="also of the names of files",
        ),
        pytest.param(
            {"autoscaler_dry_run": "true"},
            "autoscaler_dry_run: there is no such setting; write AUTOSCALER_DRY_RUN",
            id="names are upper case",
        ),
        pytest.param(
            {"AUTOSCALER_POLICIES_FILE": "x"},
            "AUTOSCALER_POLICIES_FILE: there is no such setting; write AUTOSCALER_POLICIES",
            id="only secrets come from files",
        ),
        pytest.param(
            {"AUTOSCALER_XYZZY": "x"}, "AUTOSCALER_XYZZY: there is no such setting; take it out", id="nothing is near"
        ),
        pytest.param(
            {"AUTOSCALER_GRAFANA_SERVICE_HOST": "10.0.0.1"},
            "AUTOSCALER_GRAFANA_SERVICE_HOST: there is no such setting; "
            "if Kubernetes puts it there for a Service, set enableServiceLinks: false on the pod",
            id="what Kubernetes injects for a service of another name",
        ),
    ],
)
def test_an_unknown_name_is_refused(environ: dict[str, str], expected: str) -> None:
    assert problems(environ) == [expected]


def test_what_kubernetes_injects_for_the_service_is_ignored() -> None:
    load_settings(
        {
            "AUTOSCALER_PORT": "tcp://10.0.0.1:8080",
            "AUTOSCALER_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "AUTOSCALER_PORT_8080_TCP_ADDR": "10.0.0.1",
            "AUTOSCALER_SERVICE_HOST": "10.0.0.1",
            "AUTOSCALER_SERVICE_PORT_HTTP": "8080",
        }
    )


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        pytest.param({"AUTOSCALER_PROMETHEUS_USERNAME": "u"}, "without AUTOSCALER_PROMETHEUS_PASSWORD", id="user"),
        pytest.param({"AUTOSCALER_PROMETHEUS_PASSWORD": HUSH}, "without AUTOSCALER_PROMETHEUS_USERNAME", id="password"),
        pytest.param({"AUTOSCALER_PROMETHEUS_KEY": __file__}, "without AUTOSCALER_PROMETHEUS_CERT", id="key"),
        pytest.param({"ALIBABA_CLOUD_ACCESS_KEY_ID": "i"}, "without ALIBABA_CLOUD_ACCESS_KEY_SECRET", id="key id"),
        pytest.param(
            {"ALIBABA_CLOUD_SECURITY_TOKEN": HUSH}, "without ALIBABA_CLOUD_ACCESS_KEY_ID", id="temporary token"
        ),
        pytest.param({"AUTOSCALER_API_READS": "token"}, "lets nobody read", id="reads by token, and no token"),
        pytest.param(
            {
                "AUTOSCALER_PROMETHEUS_TOKEN": HUSH,
                "AUTOSCALER_PROMETHEUS_USERNAME": "u",
                "AUTOSCALER_PROMETHEUS_PASSWORD": HUSH,
            },
            "and a user name too",
            id="two ways to log in",
        ),
        pytest.param(
            {"AUTOSCALER_LEDGER": "sqlite:///x", "AUTOSCALER_LEDGER_FILE": "/x"},
            "is given, and AUTOSCALER_LEDGER_FILE too",
            id="a value and a file",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(environ: dict[str, str], says: str) -> None:
    [problem] = problems(environ)
    assert says in problem


def test_empty_names_of_the_cloud_are_none() -> None:
    settings = load_settings({"ALIBABA_CLOUD_SECURITY_TOKEN": "", "ALIBABA_CLOUD_ACCESS_KEY_ID_FILE": ""})
    assert (settings.security_token, settings.access_key_id) == (None, None)


def test_every_problem_is_told_at_once() -> None:
    found = problems(
        {
            "AUTOSCALER_POLICY": "x",
            "AUTOSCALER_DRY_RUN": "",
            "AUTOSCALER_LISTEN": HUSH,
            "AUTOSCALER_LEDGER": f"mysql://{HUSH}",
            "AUTOSCALER_PROMETHEUS_PASSWORD_FILE": "/nowhere",
            "ALIBABA_CLOUD_ACCESS_KEY_ID": "i",
        }
    )
    assert [problem.partition(":")[0] for problem in found] == [
        "AUTOSCALER_POLICY",
        "AUTOSCALER_PROMETHEUS_PASSWORD",
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "AUTOSCALER_PROMETHEUS_PASSWORD",
        "AUTOSCALER_LEDGER",
        "AUTOSCALER_LISTEN",
        "AUTOSCALER_DRY_RUN",
    ]


@pytest.mark.parametrize("row", [row for row in describe_settings() if row.secret], ids=lambda row: row.name)
def test_every_secret_may_come_from_a_file_that_changes(tmp_path: Path, row: object) -> None:
    first, second = {
        "AUTOSCALER_LEDGER": ("sqlite:///one", "sqlite:///two"),
        "AUTOSCALER_API_TOKENS": (f"anna={TOKEN}1\n", f"anna={TOKEN}1\nanna={TOKEN}2\n"),
    }.get(row.name, ("one\n", "two\n"))
    file = tmp_path / "secret"
    file.write_text(first)
    others = {
        "AUTOSCALER_PROMETHEUS_PASSWORD": {"AUTOSCALER_PROMETHEUS_USERNAME": "u"},
        "ALIBABA_CLOUD_ACCESS_KEY_ID": {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s"},
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": {"ALIBABA_CLOUD_ACCESS_KEY_ID": "i"},
        "ALIBABA_CLOUD_SECURITY_TOKEN": {"ALIBABA_CLOUD_ACCESS_KEY_ID": "i", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s"},
    }.get(row.name, {})
    settings = load_settings({f"{row.name}_FILE": str(file), **others})
    [field] = [field for field, info in Settings.model_fields.items() if info.validation_alias == row.name]
    secret = getattr(settings, field)
    before = secret()
    file.write_text(second)
    after = secret()
    assert before != after
    file.unlink()
    assert secret() == after


def test_a_name_may_have_two_tokens() -> None:
    settings = load_settings({"AUTOSCALER_API_TOKENS": f"anna={TOKEN}1, bo={TOKEN}==\n anna = {TOKEN}2 ,"})
    assert settings.api_tokens is not None
    assert [(entry.author, entry.token.get_secret_value()) for entry in settings.api_tokens()] == [
        ("anna", f"{TOKEN}1"),
        ("bo", f"{TOKEN}=="),
        ("anna", f"{TOKEN}2"),
    ]


def test_a_spoilt_file_of_tokens_lets_no_one_in_and_no_one_out(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"anna={TOKEN}")
    settings = load_settings({"AUTOSCALER_API_TOKENS_FILE": str(file)})
    assert settings.api_tokens is not None
    file.write_text(f"anna={TOKEN}\nmallory")
    assert [entry.author for entry in settings.api_tokens()] == ["anna"]


def test_the_table_tells_every_setting_of_the_contract() -> None:
    table = {row.name: row for row in describe_settings()}
    assert set(table) == {
        "AUTOSCALER_POLICIES",
        "AUTOSCALER_PROMETHEUS_URL",
        "AUTOSCALER_PROMETHEUS_TOKEN",
        "AUTOSCALER_PROMETHEUS_USERNAME",
        "AUTOSCALER_PROMETHEUS_PASSWORD",
        "AUTOSCALER_PROMETHEUS_CA",
        "AUTOSCALER_PROMETHEUS_CERT",
        "AUTOSCALER_PROMETHEUS_KEY",
        "AUTOSCALER_PROMETHEUS_TIMEOUT",
        "AUTOSCALER_LEDGER",
        "AUTOSCALER_CLOUD_ENDPOINT",
        "AUTOSCALER_CLOUD_TIMEOUT",
        "AUTOSCALER_LISTEN",
        "AUTOSCALER_API_TOKENS",
        "AUTOSCALER_API_READS",
        "AUTOSCALER_LONGEST_OVERRIDE",
        "AUTOSCALER_DRY_RUN",
        "AUTOSCALER_RETENTION",
        "AUTOSCALER_LOG_FORMAT",
        "AUTOSCALER_LOG_LEVEL",
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    }
    assert table["AUTOSCALER_RETENTION"].default == "90d"
    assert {name for name, row in table.items() if row.secret} == {
        "AUTOSCALER_PROMETHEUS_TOKEN",
        "AUTOSCALER_PROMETHEUS_PASSWORD",
        "AUTOSCALER_LEDGER",
        "AUTOSCALER_API_TOKENS",
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    }
    assert all(row.says for row in table.values())
