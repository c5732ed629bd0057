import io
import json
import logging
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
import structlog
from pydantic import SecretStr

from autoscaler.logs import HIDDEN, configure_logging

HUSH = "hush-hush"


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("autoscaler")
    handlers, levels = list(root.handlers), (root.level, own.level)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    own.setLevel(levels[1])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def log() -> structlog.stdlib.BoundLogger:
    logger: structlog.stdlib.BoundLogger = structlog.get_logger("autoscaler.test")
    return logger


def test_an_event_is_one_object_on_one_line() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    log().info(
        "policy.evaluated",
        sentence='hold at 12: "sessions"\nwants 15',
        wanted=Fraction(3, 2),
        at=datetime(2026, 6, 1, tzinfo=UTC),
        seconds=timedelta(seconds=1.5),
    )
    [line] = lines(stream)
    assert datetime.fromisoformat(str(line.pop("timestamp"))).utcoffset() == timedelta(0)
    assert line == {
        "event": "policy.evaluated",
        "level": "info",
        "logger": "autoscaler.test",
        "sentence": 'hold at 12: "sessions"\nwants 15',
        "wanted": 1.5,
        "at": "2026-06-01T00:00:00+00:00",
        "seconds": 1.5,
    }


@pytest.mark.parametrize(
    ("stream", "is_json"),
    [
        pytest.param(io.StringIO(), True, id="json into a pipe"),
        pytest.param(Terminal(), False, id="console on a terminal"),
    ],
)
def test_the_format_follows_the_stream(stream: io.StringIO, is_json: bool) -> None:
    configure_logging(stream=stream)
    log().info("daemon.started")
    assert stream.getvalue().startswith("{") is is_json
    assert "daemon.started" in stream.getvalue()


@pytest.mark.parametrize(
    ("level", "logger", "said_at", "logged"),
    [
        pytest.param("info", "autoscaler.daemon", "info", True, id="our own info"),
        pytest.param("info", "autoscaler.daemon", "debug", False, id="our own debug is below info"),
        pytest.param("debug", "autoscaler.daemon", "debug", True, id="our own debug, asked for"),
        pytest.param("debug", "apscheduler.scheduler", "info", False, id="a library's info never"),
        pytest.param("info", "apscheduler.scheduler", "warning", True, id="a library's warning"),
        pytest.param("error", "apscheduler.scheduler", "warning", False, id="a library's warning is below error"),
        pytest.param("error", "autoscaler.daemon", "warning", False, id="our own warning is below error"),
    ],
)
@pytest.mark.parametrize("make", [structlog.get_logger, logging.getLogger], ids=["structlog", "standard library"])
def test_levels(level: str, logger: str, said_at: str, logged: bool, make: object) -> None:
    stream = io.StringIO()
    configure_logging("json", level, stream)
    assert callable(make)
    getattr(make(logger), said_at)("something")
    assert bool(stream.getvalue()) is logged


def test_libraries_and_warnings_are_in_the_same_log() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("httpx").warning("tried %d times", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("mind the gap", stacklevel=1)
    first, second = lines(stream)
    assert (first["event"], first["level"], first["logger"]) == ("tried 3 times", "warning", "httpx")
    assert "mind the gap" in str(second["event"])


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_variables(log_format: str) -> None:
    stream = io.StringIO()
    configure_logging(log_format, "info", stream)
    kept = HUSH  # a variable of the frame that raises
    try:
        raise ValueError(len(kept))
    except ValueError as error:
        caught = error
    log().error("purchase.failed", exc_info=(type(caught), caught, caught.__traceback__))
    logging.getLogger("library").error("failed", exc_info=caught)
    assert stream.getvalue().count("Traceback") == 2
    assert stream.getvalue().count("ValueError: 9") == 2
    assert HUSH not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({"value": SecretStr(HUSH)}, id="a secret"),
        pytest.param({"values": [SecretStr(HUSH), (SecretStr(HUSH),)]}, id="secrets in lists"),
        pytest.param({"request": {"headers": {"Authorization": HUSH}}}, id="a header at depth"),
        pytest.param({"login_password": HUSH}, id="a password by its name"),
        pytest.param({"access_key_secret": HUSH}, id="a key's secret by its name"),
        pytest.param({"x-acs-security-token": HUSH}, id="a token by its name"),
        pytest.param({"TOKEN": HUSH}, id="in capitals too"),
    ],
)
def test_secrets_are_hidden(log_format: str, keys: dict[str, object]) -> None:
    stream = io.StringIO()
    configure_logging(log_format, "info", stream)
    log().info("something.happened", **keys)
    assert HIDDEN in stream.getvalue()
    assert HUSH not in stream.getvalue()


def test_what_only_sounds_like_a_secret_is_shown() -> None:
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    log().info("something.happened", tokens_left=3, secretary="anna")
    [line] = lines(stream)
    assert (line["tokens_left"], line["secretary"]) == (3, "anna")


def test_configuring_again_replaces_what_was() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("json", "info", first)
    logger = log()
    configure_logging("json", "debug", second)
    logger.info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1
