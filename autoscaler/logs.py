"""One log: the daemon's own events and those of its libraries, a line each, to standard error.

An event is a constant dotted name, what it is about stands in keys. The last step before a line is written hides what
should not have come this far: secrets, and everything under a key that is called like one.
"""

import logging
import re
import sys
from collections.abc import Mapping
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any, Literal, TextIO

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import EventDict, WrappedLogger

HIDDEN = "**********"
_SECRET_WORDS = frozenset({"password", "passwd", "token", "secret", "authorization", "cookie"})
_WORD_BREAK = re.compile(r"[^a-z0-9]+")

# Name of the daemon's own loggers: everything in this package.
_OWN = __name__.partition(".")[0]


def configure_logging(
    log_format: Literal["json", "console"] | None = None,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    stream: TextIO | None = None,
) -> None:
    """Send all logging of this process to ``stream`` (standard error). May be called again.

    Args:
        log_format: json is one object a line; console is for people; None is console on a terminal, else json.
        log_level: the least level of the daemon's own events. Libraries have to say at least a warning:
            APScheduler alone writes two lines for each run of each job.
        stream: where lines go.
    """
    target = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[log_level.upper()]
    if log_format is None:
        log_format = "console" if target.isatty() else "json"

    common: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *common, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                hide_secrets,
                *_rendering(log_format, colors=target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    logging.getLogger(_OWN).setLevel(level)
    logging.captureWarnings(True)


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: the event with secrets, and values under keys called like secrets, hidden at any depth."""
    return {key: HIDDEN if _is_secret(key) else _without_secrets(value) for key, value in event.items()}


def _without_secrets(value: object) -> object:
    match value:
        case SecretStr() | SecretBytes():
            return HIDDEN
        case Mapping():
            return {key: HIDDEN if _is_secret(key) else _without_secrets(inner) for key, inner in value.items()}
        case tuple():  # stays one: the renderers know an exc_info by it
            return tuple(_without_secrets(inner) for inner in value)
        case list() | set() | frozenset():
            return [_without_secrets(inner) for inner in value]
        case _:
            return value


def _is_secret(key: object) -> bool:
    return not _SECRET_WORDS.isdisjoint(_WORD_BREAK.split(str(key).lower()))


def _rendering(log_format: Literal["json", "console"], *, colors: bool) -> list[structlog.typing.Processor]:
    # Tracebacks are plain text in both: structlog's richer ones print local variables, secrets among them.
    if log_format == "console":
        return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=_as_json)]


def _as_json(value: Any) -> object:
    match value:
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Fraction():
            return float(value)
        case _:
            return str(value)
