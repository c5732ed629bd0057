"""Wiring: every part built from the settings, and nothing decided. Here alone a dry run differs from a live one."""

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from autoscaler.catalog import Catalog
from autoscaler.clock import Clock, utc_now
from autoscaler.cloud import KEPT_FOR, POLL_INTERVAL, Cloud, ImaginedCloud
from autoscaler.controller import Controller
from autoscaler.credentials import credential_source
from autoscaler.decision import Evaluation
from autoscaler.leases import Leases
from autoscaler.ledger import Ledger, LedgerError, NotFound, open_ledger
from autoscaler.metrics import Metrics
from autoscaler.model import Purchase
from autoscaler.orders import Orders, progress
from autoscaler.overview import overview
from autoscaler.policy import Policy, PrometheusServer, SecretReference, password_problem
from autoscaler.prometheus import Prometheus, Server
from autoscaler.purchasing import PasswordUnavailable, Purchasing, Seller
from autoscaler.secret import SecretUnavailable, resolve
from autoscaler.settings import Settings

if TYPE_CHECKING:
    from autoscaler.web import Desk

DEFAULT_SERVER = "default"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often the cloud is looked at; the demo, whose hours are seconds, looks more often."""

    look_kept_for: timedelta = KEPT_FOR
    look_interval: timedelta = POLL_INTERVAL
    settle_every: timedelta = timedelta(seconds=15)


class Servers:
    """The Prometheus clients, one for each server that policies name; kept while its description stays the same."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._clock = clock
        self._timeout = settings.prometheus_timeout
        self._default = Prometheus(_default_server(settings), clock=clock)
        self._named: dict[str, tuple[PrometheusServer, Prometheus]] = {}

    def named(self, servers: Mapping[str, PrometheusServer]) -> dict[str, Prometheus]:
        """The clients of these servers, and of ``default``."""
        before, self._named = self._named, {}
        for name, server in servers.items():
            known = before.pop(name, None)
            if known is not None and known[0] == server:
                self._named[name] = known
            else:
                self._named[name] = (server, Prometheus(self._described(server), clock=self._clock))
                if known is not None:
                    known[1].close()
        for _, client in before.values():
            client.close()
        return {DEFAULT_SERVER: self._default} | {name: client for name, (_, client) in self._named.items()}

    def close(self) -> None:
        """Let all their threads and connections go."""
        self._default.close()
        for _, client in self._named.values():
            client.close()

    def _described(self, server: PrometheusServer) -> Server:
        def secret(reference: SecretReference | None) -> Callable[[], SecretStr] | None:
            return None if reference is None else resolve(reference, self._environ)

        def header(value: str | SecretReference) -> Callable[[], SecretStr]:
            return resolve(value, self._environ) if isinstance(value, SecretReference) else partial(SecretStr, value)

        return Server(
            url=server.url,
            timeout=self._timeout,
            token=secret(server.token),
            username=server.username,
            password=secret(server.password),
            ca=server.ca,
            cert=server.cert,
            key=server.key,
            headers={name: header(value) for name, value in server.headers.items()},
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """A daemon's parts, put together."""

    settings: Settings
    clock: Clock
    pace: Pace
    catalog: Catalog
    servers: Servers
    cloud: Cloud
    ledger: Ledger
    leases: Leases
    registry: CollectorRegistry
    metrics: Metrics
    controller: Controller
    purchasing: Purchasing
    orders: Orders

    def load_policies(self, accept: Callable[[Sequence[Policy]], None]) -> tuple[Policy, ...]:
        """Read the policy files again, and tell the parts of what they say now; of nothing, where ``accept`` raises."""
        policies = self.catalog.reload(accept)
        self.controller.know(policies, self.servers.named(self.catalog.servers))
        self.metrics.policies_loaded(len(policies), len(self.catalog.errors))
        return policies

    def live(self) -> tuple[str, ...]:
        """The policies that buy, by name."""
        return tuple(policy.name for policy in self.catalog.policies if not policy.dry_run)

    def desk(self) -> "Desk":
        """What people on call are served from over HTTP."""
        from autoscaler.web import Access, Desk  # which commands that serve nothing need not wait for

        settings = self.settings
        return Desk(
            reads=self.ledger,
            orders=self.orders,
            overview=lambda: overview(self.ledger, self.catalog.policies, self.clock()),
            progress=partial(progress, self.ledger),
            access=Access(settings.api_tokens, reads_need_token=settings.api_reads == "token"),
            clock=self.clock,
            failures={NotFound: 404, LedgerError: 503},
        )

    def hang_up(self) -> None:
        """End the reads under way, and make no more: nobody waits for what they would say."""
        self.cloud.close()
        self.servers.close()

    def close(self) -> None:
        """Let everything go. Purchasing must be closed before."""
        self.hang_up()
        self.controller.close()
        with suppress(LedgerError):  # they run out by themselves
            self.leases.release()
        self.ledger.close()


@dataclass(frozen=True, slots=True)
class Outside:
    """The outside systems, to ask and to change nothing: what commands need that only look."""

    servers: Servers
    cloud: Cloud

    @contextmanager
    def explaining(
        self, ledger: Ledger, policies: Sequence[Policy], servers: Mapping[str, PrometheusServer]
    ) -> Iterator[Controller]:
        """A controller that knows ``policies`` and explains them; nothing can be bought by it."""
        readers, observer = self.servers.named(servers), Metrics(CollectorRegistry())
        controller = Controller(
            readers=readers, cloud=self.cloud, ledger=ledger, purchasing=_Nothing(), observer=observer
        )
        controller.know(policies, readers)
        try:
            yield controller
        finally:
            controller.close()

    def close(self) -> None:
        """Let their connections and threads go."""
        self.cloud.close()
        self.servers.close()


class _Nothing:
    """In the place of purchasing where nothing is to be bought."""

    def buy(self, evaluation: Evaluation) -> NoReturn:
        raise AssertionError(f"{evaluation.decision.policy} was to be explained, not to be bought for")


def outside(settings: Settings, environ: Mapping[str, str], *, clock: Clock = utc_now) -> Outside:
    """The outside systems that the settings name."""
    return Outside(Servers(settings, environ, clock), _cloud(settings, clock, Pace()))


def build(
    settings: Settings,
    environ: Mapping[str, str],
    *,
    clock: Clock = utc_now,
    pace: Pace = Pace(),
    ledger: Ledger | None = None,
) -> Parts:
    """Every part a daemon needs. Raises LedgerError where the ledger cannot be opened.

    ``environ`` is where policies' secrets are looked up; ``ledger`` takes the place of the one the settings name.
    """
    ledger = ledger or open_ledger(settings.ledger().get_secret_value(), clock=clock)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    cloud = _cloud(settings, clock, pace)
    imagined = ImaginedCloud()
    leases = Leases(ledger, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}")

    def seller(purchase: Purchase) -> Seller:
        return imagined if purchase.imagined else cloud

    purchasing = Purchasing(
        ledger=ledger,
        cloud=cloud,
        seller=seller,
        password=partial(login_password, environ=environ),
        observer=metrics,
        clock=clock,
        holder=leases.holder,
        held=leases.held,
    )
    servers = Servers(settings, environ, clock)
    catalog = Catalog(settings.policies, dry_run=settings.dry_run)
    controller = Controller(
        readers=servers.named({}), cloud=cloud, ledger=ledger, purchasing=purchasing, observer=metrics
    )
    return Parts(
        settings=settings,
        clock=clock,
        pace=pace,
        catalog=catalog,
        servers=servers,
        cloud=cloud,
        ledger=ledger,
        leases=leases,
        registry=registry,
        metrics=metrics,
        controller=controller,
        purchasing=purchasing,
        orders=Orders(ledger=ledger, policies=lambda: catalog.policies, clock=clock, longest=settings.longest_override),
    )


def login_password(policy: Policy, environ: Mapping[str, str]) -> SecretStr:
    """The password that a policy's workers get; a dry run's get none.

    Raises PasswordUnavailable, whose text never holds it.
    """
    return SecretStr("") if policy.dry_run else referred_password(policy.worker.login_password, environ)


def referred_password(reference: SecretReference, environ: Mapping[str, str]) -> SecretStr:
    """The password that a policy refers to, held against the cloud's rule. Raises PasswordUnavailable."""
    try:
        password = resolve(reference, environ)()
    except SecretUnavailable as error:
        raise PasswordUnavailable(f"the workers' login password cannot be read: {error}") from None
    problem = password_problem(password)
    if problem is not None:
        raise PasswordUnavailable(f"the workers' login password {problem}")
    return password


def _cloud(settings: Settings, clock: Clock, pace: Pace) -> Cloud:
    return Cloud(
        settings.cloud_endpoint,
        credential_source(settings.access_key_id, settings.access_key_secret, settings.security_token),
        timeout=settings.cloud_timeout,
        clock=clock,
        kept_for=pace.look_kept_for,
        poll_interval=pace.look_interval,
    )


def _default_server(settings: Settings) -> Server:
    return Server(
        url=settings.prometheus_url,
        timeout=settings.prometheus_timeout,
        token=settings.prometheus_token,
        username=settings.prometheus_username,
        password=settings.prometheus_password,
        ca=None if settings.prometheus_ca is None else str(settings.prometheus_ca),
        cert=None if settings.prometheus_cert is None else str(settings.prometheus_cert),
        key=None if settings.prometheus_key is None else str(settings.prometheus_key),
    )
