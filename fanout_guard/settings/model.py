"""``Settings``: one field per variable of the environment; this table is where all of them are said."""

# ruff: noqa: RUF009  (``setting`` makes a dataclass field, a new one at each call)

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from fanout_guard.core.model import Mode
from fanout_guard.core.policy import Caps, Layer, Policies
from fanout_guard.core.values import CAP, MODE, RATE, TIMEOUT, UNLIMITED, WINDOW, CapValue, choice, whole
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import kinds
from fanout_guard.settings.contradictions import contradictions
from fanout_guard.settings.environment import read_environment
from fanout_guard.settings.tenants import LAYERS, read_file
from fanout_guard.settings.variable import Variable, setting, variable_of


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """The settings of a deployment. Structured fields (routes, sources, rates) hold the text of their variable.

    Raises ConfigurationError with every problem. Neither the error nor the repr shows a secret.
    """

    mode: Mode | Literal["enforce", "shadow", "off"] = setting(
        Mode.ENFORCE, MODE, "Reject what is over a cap, only record it, or do nothing; `off` wins over a tenant's mode."
    )
    routes: str = setting("POST /circulate-document", kinds.ROUTES, "The guarded routes; `{name}` matches one segment.")
    tenant: str = setting("header:X-Tenant-ID", kinds.SOURCE, "Where the request names its tenant.")
    default_tenant: str = setting(
        "default", kinds.TENANT, "The tenant of a request that names none.", empty="such a request gets 400"
    )
    unknown_tenants: str = setting(
        "own",
        choice("own", "shared", "reject"),
        "Tenants that no configuration names: count each for itself, count all as the default tenant, or reject them"
        " with 403.",
    )
    document: str = setting(
        "json:document_id", kinds.SOURCE, "Where the request names its document.", empty="no document cap"
    )
    sites: str = setting(
        "json:target_sites", kinds.SITES, "Where the request lists its sites; join alternatives with `|`."
    )
    count: str = setting(
        "entries", choice("entries", "distinct"), "Count every entry of the list, or each distinct site once."
    )
    max_sites: CapValue = setting(300, CAP, "Entries in one circulation.")
    document_max_sites: CapValue | None = setting(
        None, CAP, "Distinct sites one document may reach in any window.", unset="as MAX_SITES"
    )
    document_window: float = setting(3600, WINDOW, "The window of the document cap, in seconds.")
    rate: str = setting(
        "", RATE, "Entries one tenant may circulate in any window; you can set several windows.", unset="no cap"
    )
    max_inflight: CapValue | None = setting(None, CAP, "Entries one tenant may have in flight.", unset="no cap")
    global_max_inflight: CapValue | None = setting(
        None, CAP, "Entries all tenants together may have in flight.", unset="no cap"
    )
    lease_ttl: float = setting(
        60, TIMEOUT, "Seconds until a dead worker's entries in flight are freed. A running request renews its lease."
    )
    tenants: Mapping[str, Caps] = setting({}, kinds.TENANTS, "Caps per tenant, by tenant id.")
    tenants_file: str = setting("", kinds.FILE, "The same as TENANTS, in a file; TENANTS wins, field by field.")
    tenant_fields: Mapping[str, Caps] = setting(
        {}, kinds.TENANTS, "One field of one tenant, with the id spelled exactly; wins over TENANTS and TENANTS_FILE."
    )
    redis_url: str = setting(
        "", kinds.REDIS_URL, "The server that holds the shared counters.", unset="counters in this process"
    )
    redis_timeout: float = setting(
        0.1, TIMEOUT, "Seconds a decision may wait for Redis, including connecting and retries."
    )
    key_prefix: str = setting("fanout", kinds.KEY_PREFIX, "The prefix of every key in Redis.")
    on_outage: str = setting(
        "local",
        choice("local", "open", "closed"),
        "While Redis is unreachable: count in this process, admit, or answer 503.",
    )
    workers: int = setting(
        1,
        whole(1, 100_000),
        "How many processes share the rate and in-flight caps while each counts for itself: in an outage, or without"
        " REDIS_URL.",
    )
    digest_key: str = setting(
        "",
        kinds.DIGEST_KEY,
        "The secret that site digests are keyed with; the same on all workers.",
        unset="from KEY_PREFIX",
    )
    refund_on: str = setting(
        "3xx,4xx", kinds.STATUSES, "Response statuses after which the charge is refunded.", empty="never"
    )
    idempotency_header: str = setting(
        "",
        kinds.HEADER,
        "A header that identifies repeats of one circulation, so that they count once.",
        unset="none",
    )
    max_body_bytes: int = setting(1_048_576, kinds.BODY_BYTES, "The largest body of a guarded request, in bytes.")
    reject_status: int = setting(422, kinds.REJECT_STATUS, "The status for a circulation that can never pass.")
    headers: bool = setting(True, kinds.FLAG, "Send RateLimit fields on guarded responses.")
    metrics: str = setting(
        "", kinds.METRICS, "Record metrics into the default registry of prometheus_client.", unset="none"
    )
    metrics_tenants: str = setting(
        "off",
        choice("off", "configured"),
        "The tenant label of metrics: none, or each tenant that the configuration names, and `other` for the rest.",
    )
    overrides_ttl: float = setting(
        2, TIMEOUT, "Seconds until every worker sees a cap changed with `fanout-guard caps`."
    )
    tenants_from_file: Mapping[str, Caps] = field(init=False, compare=False, default_factory=dict)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from ``environ`` (by default the process's); one error reports every problem."""
        given = read_environment(os.environ if environ is None else environ, variables())
        if not given.problems:
            return cls(**given.values)
        defaults = {name: variable.default for name, variable in _VARIABLES.items()}
        _, problems = _settle({**defaults, **given.values}, given.unread)
        raise ConfigurationError([*given.problems, *problems])

    def __post_init__(self) -> None:
        settled, problems = _settle({name: getattr(self, name) for name in _VARIABLES})
        if problems:
            raise ConfigurationError(problems)
        for name, value in settled.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        shown = (f"{each.field}={each.shown(getattr(self, each.field))!r}" for each in variables())
        return f"Settings({', '.join(shown)})"

    @property
    def refund_statuses(self) -> frozenset[int]:
        """The statuses of ``refund_on``."""
        return kinds.parse_statuses(self.refund_on)

    @property
    def digest_secret(self) -> str:
        """What digests are keyed with: ``digest_key``, or ``key_prefix`` where there is none."""
        return self.digest_key or self.key_prefix

    def defaults(self) -> Caps:
        """The deployment's own caps."""
        return Caps(
            max_sites=self.max_sites,
            document_max_sites=self.document_max_sites,
            document_window=self.document_window,
            rate=self.rate,
            max_inflight=self.max_inflight,
            mode=self.mode,
        )

    def layers(self) -> tuple[Layer, ...]:
        """The places that name tenants, the nearest first."""
        return tuple(getattr(self, name) for name in LAYERS)

    def policies(self) -> Policies:
        """Every tenant's policy by these settings."""
        whole_cap = self.global_max_inflight
        return Policies(
            self.defaults(),
            self.layers(),
            inflight_global=None if whole_cap == UNLIMITED else whole_cap,
            documents=bool(self.document),
            known=[self.default_tenant] if self.default_tenant else [],
        )


def variables() -> tuple[Variable, ...]:
    """Every variable, in the order of the documentation."""
    return tuple(_VARIABLES.values())


_VARIABLES = {each.name: variable_of(each) for each in fields(Settings) if each.metadata}


def _settle(values: dict[str, Any], unread: Set[str] = frozenset()) -> tuple[dict[str, Any], list[str]]:
    """The values in their final form, and every problem: of a field, of the file, of fields together."""
    settled = dict(values)
    problems: list[str] = []
    wrong = set(unread)
    for name, variable in _VARIABLES.items():
        try:
            settled[name] = variable.check(values[name])
        except ValueError as error:
            problems.extend(variable.problems(values[name], error))
            wrong.add(name)
    settled["tenants_from_file"] = {}
    problems.extend(_read_tenants_file(settled, wrong))
    return settled, [*problems, *contradictions(settled, wrong)]


def _read_tenants_file(settled: dict[str, Any], wrong: set[str]) -> Iterator[str]:
    path = settled["tenants_file"]
    if "tenants_file" in wrong or not path:
        return
    try:
        settled["tenants_from_file"] = read_file(path)
    except ValueError as error:
        wrong.add("tenants_file")
        yield from _VARIABLES["tenants_file"].problems(path, error)
