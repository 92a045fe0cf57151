"""The metrics: names, labels, what counts where, and that no label can grow."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fanout_guard.core.model import Decision, Outcome, Policy, Reading
from fanout_guard.errors import ConfigurationError
from fanout_guard.observe.hooks import REASONS, UNREADABLE
from fanout_guard.observe.prometheus import PrometheusObserver
from tests.observe.conftest import Decide

FAMILIES = {
    "fanout_guard_decisions": ("counter", {"outcome", "policy"}),
    "fanout_guard_sites": ("counter", {"outcome"}),
    "fanout_guard_circulation_sites": ("histogram", {"le"}),
    "fanout_guard_decision_seconds": ("histogram", {"le"}),
    "fanout_guard_inflight_sites": ("gauge", set()),
    "fanout_guard_near_cap": ("counter", {"policy"}),
    "fanout_guard_refunded_sites": ("counter", set()),
    "fanout_guard_leases_expired": ("counter", set()),
    "fanout_guard_outage": ("gauge", set()),
    "fanout_guard_counter_errors": ("counter", {"reason"}),
}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"fanout_guard_{name}", labels)


def series(registry: CollectorRegistry) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in registry.collect()
        for sample in family.samples
    }


def test_every_family_is_there_from_the_start_under_its_name(registry: CollectorRegistry) -> None:
    """Dashboards and alerts are written against these names, and an absent series is not a zero."""
    PrometheusObserver(registry=registry)
    text = generate_latest(registry).decode()
    found = {
        family.name: (family.type, {label for sample in family.samples for label in sample.labels})
        for family in text_string_to_metric_families(text)
        if not family.name.endswith("_created")
    }
    assert found == FAMILIES


def test_every_label_that_is_fixed_is_there_from_the_start(registry: CollectorRegistry) -> None:
    """``rate()`` cannot see the first rejection in a series that begins with it."""
    PrometheusObserver(registry=registry, policies=["rate-60"])
    before = series(registry)
    for policy in ("circulation", "document", "rate-60", "inflight", "inflight-global", "outage"):
        for outcome in ("rejected", "shadowed"):
            assert value(registry, "decisions_total", outcome=outcome, policy=policy) == 0
    assert value(registry, "decisions_total", outcome="admitted", policy="") == 0
    for kind in UNREADABLE:
        assert value(registry, "decisions_total", outcome="unreadable", policy=kind) == 0
    for reason in REASONS:
        assert value(registry, "counter_errors_total", reason=reason) == 0
    for outcome in ("admitted", "rejected", "shadowed"):
        assert value(registry, "sites_total", outcome=outcome) == 0
    for policy in ("circulation", "document", "rate-60", "inflight", "inflight-global"):
        assert value(registry, "near_cap_total", policy=policy) == 0
    assert value(registry, "outage") == value(registry, "inflight_sites") == 0
    assert series(registry) == before


def test_each_outcome_counts_requests_and_sites(
    registry: CollectorRegistry, decide: Decide, reject: Decide, shadow: Decide
) -> None:
    """Both are needed: one refused circulation of 500 hurts the platform more than ten admitted ones of 3."""
    observer = PrometheusObserver(registry=registry)
    observer.decided(decide(requested=250), 0.001)
    observer.decided(reject("document", requested=400), 0.001)
    observer.decided(shadow("circulation", "document", requested=500), 0.001)
    observer.unreadable("body-too-large", "", None)
    assert value(registry, "decisions_total", outcome="admitted", policy="") == 1
    assert value(registry, "decisions_total", outcome="rejected", policy="document") == 1
    assert value(registry, "decisions_total", outcome="shadowed", policy="circulation") == 1
    assert value(registry, "decisions_total", outcome="unreadable", policy="body-too-large") == 1
    assert value(registry, "sites_total", outcome="admitted") == 250
    assert value(registry, "sites_total", outcome="rejected") == 400
    assert value(registry, "sites_total", outcome="shadowed") == 500


def test_the_fan_out_is_counted_as_asked_for(registry: CollectorRegistry, reject: Decide) -> None:
    """Load tests start from what clients ask for, not from what a cap let through."""
    observer = PrometheusObserver(registry=registry)
    for requested in (0, 300, 301, 500, 20_000):
        observer.decided(reject(requested=requested), 0.001)
    counts = [value(registry, "circulation_sites_bucket", le=le) for le in ("1.0", "300.0", "350.0", "500.0", "+Inf")]
    assert counts == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("sites", [100, 200, 300, 400, 500])
def test_the_levels_of_the_stress_test_are_buckets(registry: CollectorRegistry, sites: int) -> None:
    """How many circulations are past a level can be answered exactly only at a bucket's edge."""
    PrometheusObserver(registry=registry)
    assert value(registry, "circulation_sites_bucket", le=f"{sites}.0") == 0


def test_decision_times_are_resolved_from_50_microseconds_to_past_the_time_out(
    registry: CollectorRegistry, decide: Decide
) -> None:
    """In-process counters take microseconds and a lost Redis the whole time-out; both must be seen."""
    observer = PrometheusObserver(registry=registry)
    observer.decided(decide(), 40e-6)
    observer.decided(decide(), 0.1005)
    assert value(registry, "decision_seconds_bucket", le="5e-05") == 1
    assert value(registry, "decision_seconds_bucket", le="0.1") == 1
    assert value(registry, "decision_seconds_bucket", le="0.2") == 2


@pytest.mark.parametrize(("used", "counted"), [(239, 0), (240, 1), (300, 1)])
def test_near_cap_begins_at_80_percent(used: int, counted: int, registry: CollectorRegistry, decide: Decide) -> None:
    """The warning before the refusals: a tenant who is about to be told no."""
    observer = PrometheusObserver(registry=registry)
    observer.decided(decide(readings=(Reading("document", 300, used, 0, 0, 0),)), 0.001)
    assert value(registry, "near_cap_total", policy="document") == counted


@pytest.mark.parametrize(("requested", "cap", "counted"), [(239, 300, 0), (240, 300, 1), (240, None, 0)])
def test_near_cap_holds_for_the_size_of_one_circulation_too(
    requested: int, cap: int | None, counted: int, registry: CollectorRegistry, decide: Decide
) -> None:
    """A client whose lists grow is seen before its first list that is too long."""
    observer = PrometheusObserver(registry=registry)
    observer.decided(decide(requested=requested, caps=Policy(circulation=cap)), 0.001)
    assert value(registry, "near_cap_total", policy="circulation") == counted


def test_near_cap_counts_neither_refusals_nor_empty_circulations(
    registry: CollectorRegistry, decide: Decide, reject: Decide, shadow: Decide
) -> None:
    """Refusals have a metric of their own, and an empty list uses nothing of any cap."""
    observer = PrometheusObserver(registry=registry)
    full = (Reading("document", 300, 300, 0, 0, 0),)
    observer.decided(reject("document", readings=full), 0.001)
    observer.decided(shadow("document", readings=full), 0.001)
    observer.decided(decide(requested=0, caps=Policy(circulation=0), readings=full), 0.001)
    assert value(registry, "near_cap_total", policy="document") == 0
    assert value(registry, "near_cap_total", policy="circulation") == 0


def test_refunds_leases_errors_and_what_is_in_flight(registry: CollectorRegistry) -> None:
    """The slow leaks: work that is never finished, and counters that fail now and then."""
    observer = PrometheusObserver(registry=registry)
    observer.refunded(40)
    observer.leases_expired(2)
    observer.counter_error("oom")
    observer.inflight(300)
    observer.inflight(-100)
    assert value(registry, "refunded_sites_total") == 40
    assert value(registry, "leases_expired_total") == 2
    assert value(registry, "counter_errors_total", reason="oom") == 1
    assert value(registry, "inflight_sites") == 200


def test_what_is_not_one_of_the_fixed_words_counts_as_other(registry: CollectorRegistry) -> None:
    """A server's error text as a label would be a series per error, and might be a secret."""
    observer = PrometheusObserver(registry=registry)
    before = series(registry)
    observer.counter_error("AUTH failed for redis://:hunter2@redis")
    observer.unreadable("something new", "", None)
    assert value(registry, "counter_errors_total", reason="other") == 1
    assert value(registry, "decisions_total", outcome="unreadable", policy="other") == 1
    assert series(registry) == before


def test_an_outage_shows_while_any_guard_of_the_process_is_in_one(registry: CollectorRegistry) -> None:
    """The guard that came back must not hide the one that did not."""
    first, second = PrometheusObserver(registry=registry), PrometheusObserver(registry=registry)
    first.outage(True, "timeout")
    second.outage(True, "timeout")
    second.outage(False, "timeout")
    assert value(registry, "outage") == 1
    first.outage(False, "timeout")
    assert value(registry, "outage") == 0


def test_a_guard_that_is_closed_in_an_outage_leaves_no_alarm(registry: CollectorRegistry) -> None:
    """Nobody is left to say that it is over."""
    observer = PrometheusObserver(registry=registry)
    observer.outage(True, "timeout")
    observer.close()
    assert value(registry, "outage") == 0


def test_two_guards_in_one_process_share_the_families(registry: CollectorRegistry, decide: Decide) -> None:
    """The registry refuses a name that is registered twice, and an app may well have two guards."""
    for _ in range(2):
        PrometheusObserver(registry=registry).decided(decide(), 0.001)
    assert value(registry, "decisions_total", outcome="admitted", policy="") == 2


def test_a_name_that_is_taken_is_a_configuration_error(registry: CollectorRegistry) -> None:
    """The start must say which setting is in the way, not end in a traceback of another library."""
    Counter("fanout_guard_decisions", "Somebody else's.", registry=registry)
    with pytest.raises(ConfigurationError, match="FANOUT_GUARD_METRICS: Duplicated"):
        PrometheusObserver(registry=registry)


def test_a_name_that_is_taken_leaves_nothing_behind(registry: CollectorRegistry) -> None:
    """Once the name is free all are there; until then none, nor another error at the next try."""
    taken = Gauge("fanout_guard_outage", "Of somebody else.", registry=registry)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="fanout_guard_outage"):
            PrometheusObserver(registry=registry)
    assert [family.name for family in registry.collect()] == ["fanout_guard_outage"]
    registry.unregister(taken)
    PrometheusObserver(registry=registry)


def test_rate_windows_of_overrides_get_labels_up_to_a_bound(registry: CollectorRegistry, reject: Decide) -> None:
    """A window may come from an override or the user's database, after the start: seen, but bounded."""
    observer = PrometheusObserver(registry=registry)
    for window in range(1, 1000):
        observer.decided(reject(f"rate-{window}"), 0.001)
    assert value(registry, "decisions_total", outcome="rejected", policy="rate-1") == 1
    assert value(registry, "decisions_total", outcome="rejected", policy="rate-999") is None
    others = value(registry, "decisions_total", outcome="rejected", policy="other")
    assert others is not None
    assert others > 900


def test_configured_tenants_are_labels_and_the_rest_is_other(registry: CollectorRegistry, decide: Decide) -> None:
    """The tenant id is chosen by the client; only the names that the operator wrote down are labels."""
    observer = PrometheusObserver(registry=registry, tenants=["acme", "beta"])
    observer.decided(decide(tenant="acme", requested=240), 0.001)
    observer.decided(decide(tenant="x" * 200, requested=30), 0.001)
    assert value(registry, "decisions_total", outcome="admitted", policy="", tenant="acme") == 1
    assert value(registry, "decisions_total", outcome="admitted", policy="", tenant="beta") == 0
    assert value(registry, "decisions_total", outcome="admitted", policy="", tenant="other") == 1
    assert value(registry, "sites_total", outcome="admitted", tenant="other") == 30
    assert value(registry, "near_cap_total", policy="circulation", tenant="acme") == 1


def test_an_unreadable_request_counts_for_the_tenant_that_it_names(registry: CollectorRegistry) -> None:
    """Who looks at one tenant wants to see that its requests cannot be read, from the first on."""
    observer = PrometheusObserver(registry=registry, tenants=["acme"])
    labels = {"outcome": "unreadable", "policy": "unreadable-circulation"}
    assert value(registry, "decisions_total", **labels, tenant="acme") == 0
    observer.unreadable("unreadable-circulation", "", "acme")
    observer.unreadable("unreadable-circulation", "", "x" * 200)
    assert value(registry, "decisions_total", **labels, tenant="acme") == 1
    assert value(registry, "decisions_total", **labels, tenant="other") == 1


def test_an_unreadable_request_that_names_nobody_has_the_tenant_other(registry: CollectorRegistry) -> None:
    """It was refused before anybody knew whose it was."""
    PrometheusObserver(registry=registry, tenants=["acme"]).unreadable("tenant-unknown", "", None)
    labels = {"outcome": "unreadable", "policy": "tenant-unknown", "tenant": "other"}
    assert value(registry, "decisions_total", **labels) == 1


def test_two_guards_of_one_process_share_the_tenant_label(registry: CollectorRegistry, decide: Decide) -> None:
    """Several applications have one registry, each with its own tenants or the same."""
    for tenants in (["acme"], ["acme", "beta"]):
        PrometheusObserver(registry=registry, tenants=tenants).decided(decide(tenant="acme"), 0.001)
    assert value(registry, "decisions_total", outcome="admitted", policy="", tenant="acme") == 2


def test_two_guards_that_differ_in_the_tenant_label(registry: CollectorRegistry, decide: Decide) -> None:
    """A family has one set of labels: without the tenant an empty one will do, but not the other way round."""
    PrometheusObserver(registry=registry, tenants=["acme"])
    PrometheusObserver(registry=registry).decided(decide(tenant="acme"), 0.001)
    assert value(registry, "decisions_total", outcome="admitted", policy="", tenant="") == 1

    without = CollectorRegistry()
    PrometheusObserver(registry=without)
    with pytest.raises(ConfigurationError, match="FANOUT_GUARD_METRICS_TENANTS"):
        PrometheusObserver(registry=without, tenants=["acme"])


@pytest.fixture(scope="module")
def shared() -> tuple[PrometheusObserver, CollectorRegistry]:
    """One observer for all examples of a property: what grows, grows over many requests."""
    registry = CollectorRegistry()
    return PrometheusObserver(registry=registry, policies=["rate-60"], tenants=["acme"]), registry


words = st.text(max_size=20) | st.sampled_from(["acme", "circulation", "rate-60", "rate-\n", "rate-٣"])


@given(
    tenant=words,
    policies=st.lists(words | st.integers(0, 10**9).map("rate-{}".format), max_size=3),
    reason=words,
    outcome=st.sampled_from([Outcome.ADMITTED, Outcome.REJECTED, Outcome.SHADOWED]),
    requested=st.integers(0, 10**9),
)
@settings(max_examples=300)
def test_no_tenant_policy_or_reason_makes_labels_without_bound(
    shared: tuple[PrometheusObserver, CollectorRegistry],
    tenant: str,
    policies: list[str],
    reason: str,
    outcome: Outcome,
    requested: int,
) -> None:
    """A label that a client can choose is how one client takes down the monitoring of everybody."""
    observer, registry = shared
    decision = Decision(
        admitted=outcome is not Outcome.REJECTED,
        outcome=outcome,
        tenant=tenant,
        requested=requested,
        policy=policies[0] if policies and outcome is not Outcome.ADMITTED else None,
        shadowed=tuple(policies) if outcome is Outcome.SHADOWED else (),
        caps=Policy(),
        readings=tuple(Reading(policy, 10, 10, 0, 0, 0) for policy in policies),
    )
    observer.decided(decision, 0.001)
    observer.unreadable(reason, "", None)
    observer.counter_error(reason)
    labels: dict[str, set[str]] = {}
    for _, pairs in series(registry):
        for name, text in pairs:
            labels.setdefault(name, set()).add(text)
    assert labels["tenant"] == {"acme", "other"}
    assert labels["reason"] == set(REASONS)
    assert len(labels["policy"]) <= 40
