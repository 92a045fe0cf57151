"""Tenant → policy: partial caps as people write them, and how those of several origins combine.

Where caps come from (environment, files, hook, overrides) is known elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache, reduce
from typing import Any, Literal, TypeAlias

from msgspec.structs import replace

from fanout_guard.core.model import Mode, Policy, Rate
from fanout_guard.core.rates import parse_rates
from fanout_guard.core.tenant import DEFAULTS
from fanout_guard.core.times import milliseconds
from fanout_guard.core.values import CAP, MODE, RATE, UNLIMITED, WINDOW, CapValue, Kind, Spelled, problem, shown
from fanout_guard.errors import ConfigurationError

CAP_FIELDS: Mapping[str, Kind] = {
    "max_sites": CAP,
    "document_max_sites": CAP,
    "document_window": WINDOW,
    "rate": RATE,
    "max_inflight": CAP,
    "mode": MODE,
}

_MAX_RESOLVED = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """The caps of one tenant; a field that is None takes the deployment's default.

    A cap is a whole number or ``"unlimited"``. ``document_window`` is in seconds. ``rate`` is in the notation of the
    ``limits`` library; ``""`` means no rate.

    Raises ConfigurationError, with every problem, if a value is out of range.
    """

    max_sites: CapValue | None = None
    document_max_sites: CapValue | None = None
    document_window: float | None = None
    rate: str | None = None
    max_inflight: CapValue | None = None
    mode: Mode | Literal["enforce", "shadow", "off"] | None = None

    def __post_init__(self) -> None:
        problems = []
        for name, value in self.given().items():
            kind = CAP_FIELDS[name]
            try:
                object.__setattr__(self, name, kind.check(value))
            except ValueError as error:
                problems.append(problem(name, value, kind, error))
        if problems:
            raise ConfigurationError(problems)

    def given(self) -> dict[str, Any]:
        """The fields that were given, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    def over(self, farther: Caps) -> Caps:
        """These caps laid over others: fields that are None here are taken from ``farther``."""
        return Caps(**{**farther.given(), **self.given()})

    @classmethod
    def read(cls, values: Mapping[str, object]) -> Caps:
        """Caps from a document (JSON, TOML): numbers by their spelling, unknown fields refused."""
        checked: dict[str, Any] = {}
        problems = []
        for name, value in values.items():
            kind = CAP_FIELDS.get(name)
            if kind is None:
                problems.append(f"{shown(name)} is not a field; expected {', '.join(CAP_FIELDS)}")
                continue
            try:
                checked[name] = kind.parse(value) if isinstance(value, Spelled) else kind.check(value)
            except ValueError as error:
                problems.append(problem(name, value, kind, error))
        if problems:
            raise ConfigurationError(problems)
        return cls(**checked)


NO_CAPS = Caps()

Layer: TypeAlias = Mapping[str, Caps]
"""The caps of all tenants that one origin (a variable, a file) names."""


class Policies:
    """Every tenant's policy, compiled once from the configuration.

    ``defaults`` are the deployment's caps, where None is no cap; ``layers`` name tenants, the nearest first.
    ``MODE=off`` among the defaults beats every other mode. Without ``documents`` there is no document cap.
    """

    def __init__(
        self,
        defaults: Caps,
        layers: Sequence[Layer] = (),
        *,
        inflight_global: int | None = None,
        documents: bool = True,
        known: Iterable[str] = (),
    ) -> None:
        self._defaults = defaults
        self._inflight_global = inflight_global
        self._documents = documents
        tenants = {tenant for layer in layers for tenant in layer}
        self._own = {tenant: _laid_over(layer[tenant] for layer in layers if tenant in layer) for tenant in tenants}
        self._known = frozenset(known).union(self._own)
        self._default = self._resolve(NO_CAPS, defaults)
        self._static = {tenant: self._resolve(own, defaults) for tenant, own in self._own.items()}
        self._layered: dict[tuple[str | None, Caps | None, Caps | None, Caps | None], Policy] = {}

    def known(self, tenant: str) -> bool:
        """Whether the configuration names the tenant."""
        return tenant in self._known

    def configured(self) -> tuple[str, ...]:
        """The tenants that have caps of their own, sorted."""
        return tuple(sorted(self._own))

    def by_tenant(self) -> dict[str, Policy]:
        """The deployment's policy, under ``*``, then that of each tenant with caps of its own."""
        return {DEFAULTS: self._default, **{tenant: self._static[tenant] for tenant in self.configured()}}

    def static(self, tenant: str) -> Policy:
        """The tenant's policy by the configuration alone."""
        return self._static.get(tenant, self._default)

    def with_layers(
        self,
        tenant: str,
        hook: Caps | None = None,
        override: Caps | None = None,
        default_override: Caps | None = None,
    ) -> Policy:
        """The tenant's policy with what is known only at run time.

        ``override`` is the tenant's own, ``default_override`` that of the deployment (tenant ``*``).
        """
        if hook is None and override is None and default_override is None:
            return self.static(tenant)
        own = self._own.get(tenant)
        # Tenants without caps of their own share entries, so that made-up names fill no memory.
        key = (tenant if own is not None else None, hook, override, default_override)
        policy = self._layered.get(key)
        if policy is None:
            defaults = self._defaults if default_override is None else default_override.over(self._defaults)
            policy = self._resolve(_laid_over(caps for caps in (override, hook, own) if caps is not None), defaults)
            if len(self._layered) >= _MAX_RESOLVED:
                self._layered.clear()
            self._layered[key] = policy
        return policy

    def _resolve(self, own: Caps, defaults: Caps) -> Policy:
        caps = own.over(defaults)
        off = Mode.OFF in (self._defaults.mode, defaults.mode)
        return Policy(
            mode=Mode.OFF if off else Mode(caps.mode or Mode.ENFORCE),
            circulation=_number(caps.max_sites),
            document=_number(_document_cap(own, defaults)) if self._documents else None,
            document_window_ms=milliseconds(caps.document_window or 0),
            rates=parse_rates(caps.rate or ""),
            inflight=_number(caps.max_inflight),
            inflight_global=self._inflight_global,
        )


def _document_cap(own: Caps, defaults: Caps) -> CapValue | None:
    # A tenant's document cap follows its own max_sites, even beyond the deployment's DOCUMENT_MAX_SITES. Otherwise
    # a tenant with a plan of 500 sites would be refused at 301, by a cap that nobody set for it.
    for value in (own.document_max_sites, own.max_sites, defaults.document_max_sites):
        if value is not None:
            return value
    return defaults.max_sites


def _laid_over(nearest_first: Iterable[Caps]) -> Caps:
    return reduce(Caps.over, nearest_first, NO_CAPS)


def _number(cap: CapValue | None) -> int | None:
    return None if cap == UNLIMITED else cap


def without_document(policy: Policy) -> Policy:
    """The caps of a circulation that is no document's."""
    return policy if policy.document is None else _without_document(policy)


@lru_cache(maxsize=_MAX_RESOLVED)
def _without_document(policy: Policy) -> Policy:
    return replace(policy, document=None)


def share(policy: Policy, workers: int) -> Policy:
    """One process's part of the caps that ``workers`` processes have together.

    A share of a rate or in-flight cap is never below one circulation at the tenant's cap, nor above the cap
    itself; the document cap is not divided, since a document's circulations may all reach one process.
    """
    return policy if workers == 1 else _share(policy, workers)


@lru_cache(maxsize=_MAX_RESOLVED)
def _share(policy: Policy, workers: int) -> Policy:
    def part(cap: int) -> int:
        return min(cap, max(cap // workers, cap if policy.circulation is None else policy.circulation))

    return replace(
        policy,
        rates=tuple(Rate(part(rate.limit), rate.window_ms) for rate in policy.rates),
        inflight=None if policy.inflight is None else part(policy.inflight),
        inflight_global=None if policy.inflight_global is None else part(policy.inflight_global),
    )
