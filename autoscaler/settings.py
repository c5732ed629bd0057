"""The environment, parsed once into frozen settings, or refused with every problem at once.

Defaults are written as a user would write them, pass the same parsers, and stand as they are in the table of settings.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasGenerator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from autoscaler.setting_values import (
    ApiTokens,
    CloudUrl,
    Duration,
    ExistingFile,
    Folder,
    LedgerUrl,
    ListenAddress,
    OptionalBearer,
    OptionalSecret,
    SecretForm,
    Switch,
    Text,
    Url,
    one_of,
)

PREFIX = "AUTOSCALER_"
FILE_SUFFIX = "_FILE"

# A Service called "autoscaler" makes the kubelet put these into every pod of its namespace.
_INJECTED = (f"{PREFIX}SERVICE_", f"{PREFIX}PORT")
_LIKE_INJECTED = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """What is wrong with one setting."""

    name: str  # of the environment variable
    what: str
    mend: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}; {self.mend}"


class SettingsError(Exception):
    """The environment cannot be used. Its text is one line for each problem, without any value."""

    def __init__(self, problems: tuple[SettingProblem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def _variable(field: str) -> str:
    return PREFIX + field.upper()


class Settings(BaseSettings):
    """What the environment says. A secret is a callable that gives it as it is at that moment; None: not given."""

    model_config = SettingsConfigDict(
        alias_generator=AliasGenerator(validation_alias=_variable),
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    policies: Annotated[Folder, Field(default="policies", description="Folder of policy files.")]
    prometheus_url: Annotated[
        Url, Field(default="http://127.0.0.1:9090", description="The Prometheus called `default`.")
    ]
    prometheus_token: Annotated[OptionalBearer, Field(default=None, description="Bearer token for it.")]
    prometheus_username: Annotated[Text | None, Field(default=None, description="User name for it, with a password.")]
    prometheus_password: Annotated[
        OptionalSecret, Field(default=None, description="Password for it, with a user name.")
    ]
    prometheus_ca: Annotated[
        ExistingFile | None, Field(default=None, description="PEM file of the authority that vouches for it.")
    ]
    prometheus_cert: Annotated[
        ExistingFile | None, Field(default=None, description="PEM file of the client certificate.")
    ]
    prometheus_key: Annotated[
        ExistingFile | None, Field(default=None, description="PEM file of its key, if not in the same file.")
    ]
    prometheus_timeout: Annotated[
        Duration, Field(default="5s", description="Longest wait for the answers of one evaluation.")
    ]
    ledger: Annotated[
        LedgerUrl,
        Field(
            default="sqlite:///autoscaler.db",
            description="The record everything is computed from; or postgresql+psycopg://…",
        ),
    ]
    cloud_endpoint: Annotated[
        CloudUrl,
        Field(default="https://cs.aliyuncs.com", description="The cloud's API, or that of the cluster's region."),
    ]
    cloud_timeout: Annotated[
        Duration,
        Field(
            default="60s",
            description="Longest wait for the cloud. Shorter means more purchases whose outcome is unknown.",
        ),
    ]
    listen: Annotated[
        ListenAddress,
        Field(default="127.0.0.1:8080", description="host:port of health, metrics, the API and the page."),
    ]
    api_tokens: Annotated[
        ApiTokens,
        Field(
            default=None,
            description="name=token, by comma or line; a name may have two. None: orders over HTTP are refused.",
        ),
    ]
    api_reads: Annotated[
        Literal["open", "token"],
        one_of("open", "token"),
        Field(default="open", description="Who may read over HTTP: open is everybody, token is who has one."),
    ]
    dry_run: Annotated[
        Switch,
        Field(
            default="false",
            description="true: nothing is bought, whatever a policy says; open purchases are still settled.",
        ),
    ]
    longest_override: Annotated[
        Duration, Field(default="7d", description="How long an order of a person may hold at most.")
    ]
    retention: Annotated[Duration, Field(default="90d", description="How long decisions are kept.")]
    log_format: Annotated[
        Annotated[Literal["json", "console"], one_of("json", "console")] | None,
        Field(default=None, description="json or console. None: console on a terminal, else json."),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        one_of("debug", "info", "warning", "error"),
        Field(default="info", description="The least level that is logged: debug, info, warning or error."),
    ]
    access_key_id: Annotated[
        OptionalSecret,
        Field(default=None, validation_alias="ALIBABA_CLOUD_ACCESS_KEY_ID", description="The cloud's credential."),
    ]
    access_key_secret: Annotated[
        OptionalSecret,
        Field(default=None, validation_alias="ALIBABA_CLOUD_ACCESS_KEY_SECRET", description="Its secret."),
    ]
    security_token: Annotated[
        OptionalSecret,
        Field(
            default=None,
            validation_alias="ALIBABA_CLOUD_SECURITY_TOKEN",
            description="Its token, if it is a temporary one.",
        ),
    ]

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what load_settings hands over: the library's own source reads ``os.environ``, and in any case."""
        return (init_settings,)


@dataclass(frozen=True, slots=True)
class SettingDescription:
    """One row of the table of settings."""

    name: str  # of the environment variable
    default: str | None  # as one would write it; None: nothing
    secret: bool  # it may also be given as <name>_FILE
    says: str


def describe_settings() -> tuple[SettingDescription, ...]:
    """Every setting there is, in the order in which they are documented."""
    return tuple(
        SettingDescription(
            name=str(info.validation_alias),
            default=info.default,
            secret=any(isinstance(mark, SecretForm) for mark in info.metadata),
            says=info.description or "",
        )
        for info in Settings.model_fields.values()
    )


def load_settings(environ: Mapping[str, str]) -> Settings:
    """The settings that ``environ`` gives, usually ``os.environ``.

    Raises:
        SettingsError: with every problem there is.
    """
    variables = _Variables(environ)
    problems = [*_unknown(environ), *_unpaired(environ)]
    try:
        settings = Settings.model_validate(variables())
    except ValidationError as error:
        found = [(str(each["loc"][0]), each["ctx"]) for each in error.errors(include_input=False, include_url=False)]
        problems += [SettingProblem(name, context["what"], context["mend"]) for name, context in found]
    problems += variables.problems
    if problems:
        # Not raised where the ValidationError is caught: chained to this, its values would be in every traceback.
        raise SettingsError(tuple(problems))
    return settings


class _Variables(PydanticBaseSettingsSource):
    """Hands each setting its text; a secret whose variable with _FILE is given, the Path in there."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(Settings)
        self.environ = environ
        self.problems: list[SettingProblem] = []

    def __call__(self) -> dict[str, Any]:
        found = (self.get_field_value(info, field) for field, info in Settings.model_fields.items())
        return {name: raw for raw, name, _ in found if raw is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | Path | None, str, bool]:
        """The setting's raw value, the name of its variable, and that it needs no decoding."""
        name = str(field.validation_alias)
        text = self._text(name)
        if not any(isinstance(mark, SecretForm) for mark in field.metadata):
            return text, name, False
        path = self._text(name + FILE_SUFFIX)
        if text is not None and path is not None:
            self.problems.append(
                SettingProblem(name, f"is given, and {name}{FILE_SUFFIX} too", "leave one of them out")
            )
            return None, name, False
        return (text if path is None else Path(path)), name, False

    def _text(self, name: str) -> str | None:
        text = self.environ.get(name)
        if text == "":
            # Other tools read the cloud's own names too, and take an empty one for none.
            if name.startswith(PREFIX):
                self.problems.append(SettingProblem(name, "is empty", "give it a value, or leave it out"))
            return None
        return text


def _unknown(environ: Mapping[str, str]) -> Iterator[SettingProblem]:
    known = [name for row in describe_settings() for name in _names(row) if name.startswith(PREFIX)]
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name in known or name.startswith(_INJECTED):
            continue
        # Compared without what they all begin with, or everything would be near to everything.
        short = {each.removeprefix(PREFIX): each for each in known}
        near = get_close_matches(name.upper().removeprefix(PREFIX), short, n=1, cutoff=0.5)
        if near:
            mend = f"write {short[near[0]]}"
        elif _LIKE_INJECTED.search(name):
            mend = "if Kubernetes puts it there for a Service, set enableServiceLinks: false on the pod"
        else:
            mend = "take it out"
        yield SettingProblem(name, "there is no such setting", mend)


# Settings that mean nothing, or something dangerous, without another.
_NEEDS = (
    ("AUTOSCALER_PROMETHEUS_USERNAME", "AUTOSCALER_PROMETHEUS_PASSWORD"),
    ("AUTOSCALER_PROMETHEUS_PASSWORD", "AUTOSCALER_PROMETHEUS_USERNAME"),
    ("AUTOSCALER_PROMETHEUS_KEY", "AUTOSCALER_PROMETHEUS_CERT"),
    ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
    ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    ("ALIBABA_CLOUD_SECURITY_TOKEN", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
)


def _unpaired(environ: Mapping[str, str]) -> Iterator[SettingProblem]:
    given = {row.name for row in describe_settings() if any(environ.get(name) for name in _names(row))}
    for name, needed in _NEEDS:
        if name in given and needed not in given:
            yield SettingProblem(name, f"is given without {needed}", "give both or neither")
    if {"AUTOSCALER_PROMETHEUS_TOKEN", "AUTOSCALER_PROMETHEUS_USERNAME"} <= given:
        yield SettingProblem("AUTOSCALER_PROMETHEUS_TOKEN", "is given, and a user name too", "leave one of them out")
    if environ.get("AUTOSCALER_API_READS", "").lower() == "token" and "AUTOSCALER_API_TOKENS" not in given:
        yield SettingProblem("AUTOSCALER_API_READS", "lets nobody read", "give AUTOSCALER_API_TOKENS too")


def _names(row: SettingDescription) -> tuple[str, ...]:
    return (row.name, row.name + FILE_SUFFIX) if row.secret else (row.name,)
