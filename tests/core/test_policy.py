"""Caps as users give them, and the policy that layers of them add up to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.core.model import Mode, Policy, Rate
from fanout_guard.core.policy import NO_CAPS, Caps, Policies, share
from fanout_guard.errors import ConfigurationError
from fanout_guard.settings import Settings

DEFAULTS = Settings.from_env({}).defaults()


def merge(layers: Sequence[Caps], defaults: Caps = NO_CAPS) -> Policy:
    """A tenant's policy by caps from several places, the nearest first; ``defaults`` are laid over the usual ones."""
    return Policies(defaults.over(DEFAULTS), [{"acme": caps} for caps in layers]).static("acme")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_sites", 0),
        ("max_sites", 10**9),
        ("max_sites", "unlimited"),
        ("document_max_sites", 1),
        ("document_window", 1),
        ("document_window", 0.5 + 1),
        ("document_window", 366 * 86_400),
        ("rate", ""),
        ("rate", "unlimited"),
        ("rate", "6000/minute; 100000/day"),
        ("max_inflight", 7),
        ("mode", "shadow"),
        ("mode", Mode.OFF),
    ],
)
def test_a_value_in_range_is_kept_as_given(field: str, value: Any) -> None:
    """A valid plan must not be refused or changed on its way."""
    assert Caps(**{field: value}).given() == {field: value}


@pytest.mark.parametrize("field", ["max_sites", "document_max_sites", "max_inflight"])
@pytest.mark.parametrize(
    "value", [True, -1, 10**9 + 1, 2**53, 300.0, float("nan"), "300", "+300", "Unlimited", "", "٣٠٠", [], b"5"]
)
def test_a_cap_that_is_no_whole_number_in_range_is_refused(field: str, value: Any) -> None:
    """A cap that compares strangely (NaN, True, a text) would switch the guard off unnoticed."""
    with pytest.raises(ConfigurationError, match=f"{field}: .* expected a whole number from 0"):
        Caps(**{field: value})


@pytest.mark.parametrize("value", [0, 0.999, -5, float("nan"), float("inf"), True, "60", 366 * 86_400 + 1])
def test_a_window_outside_its_range_is_refused(value: Any) -> None:
    """A window of no length, or one that never ends, is no window."""
    with pytest.raises(ConfigurationError, match="document_window"):
        Caps(document_window=value)


@pytest.mark.parametrize("value", ["on", "Shadow", "", 1, [], True])
def test_only_the_three_modes_are_modes(value: Any) -> None:
    """A misspelt mode must not become the default one."""
    with pytest.raises(ConfigurationError, match="expected 'enforce', 'shadow' or 'off'"):
        Caps(mode=value)


def test_every_problem_is_reported_at_once() -> None:
    """Nobody wants to fix a plan one error at a time."""
    with pytest.raises(ConfigurationError) as caught:
        Caps(max_sites=-1, rate="often", mode="on")  # type: ignore[arg-type]
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["max_sites", "rate", "mode"]


def test_an_unknown_field_names_the_known_ones() -> None:
    """A misspelt field must not leave a tenant at the default unnoticed."""
    with pytest.raises(ConfigurationError, match="'maxsites' is not a field; expected max_sites, document_max_sites"):
        Caps.read({"maxsites": 5})


def test_without_caps_the_deployment_defaults_hold() -> None:
    """The defaults are the decision that the stress test led to."""
    assert merge([]) == Policy(circulation=300, document=300, document_window_ms=3_600_000)


def test_the_nearest_layer_wins_field_by_field() -> None:
    """An override of one field must leave the tenant's other fields alone."""
    policy = merge([Caps(max_sites=10), Caps(max_sites=20, rate="5/minute"), Caps(max_inflight=9)])
    assert (policy.circulation, policy.rates, policy.inflight) == (10, (Rate(5, 60_000),), 9)


def test_a_document_cap_follows_the_tenants_own_max_sites() -> None:
    """A plan of 500 sites must not be refused at 301 by a cap that nobody set for it."""
    assert merge([Caps(max_sites=500)]).document == 500


def test_a_document_cap_follows_max_sites_past_the_deployments_document_cap() -> None:
    """What is set for a tenant is nearer than anything that is set for the deployment."""
    assert merge([Caps(max_sites=500)], Caps(document_max_sites=300)).document == 500


def test_a_document_cap_of_the_tenant_stays_when_a_nearer_layer_changes_max_sites() -> None:
    """A document cap that is set follows nothing any more."""
    assert merge([Caps(max_sites=400), Caps(document_max_sites=1000, max_sites=500)]).document == 1000


@pytest.mark.parametrize(
    ("defaults", "document"),
    [
        (Caps(max_sites=200), 200),
        (Caps(document_max_sites=50), 50),
        (Caps(max_sites="unlimited"), None),
        (Caps(max_sites="unlimited", document_max_sites=9), 9),
    ],
)
def test_the_deployments_document_cap_follows_its_max_sites(defaults: Caps, document: int | None) -> None:
    """DOCUMENT_MAX_SITES is MAX_SITES until it is set."""
    assert merge([], defaults).document == document


def test_unlimited_lifts_a_cap_of_a_farther_layer() -> None:
    """There must be a way to say "no cap" for one tenant of a capped deployment."""
    lifted = merge([Caps(max_sites="unlimited", max_inflight="unlimited", rate="unlimited")], _all_caps())
    assert (lifted.circulation, lifted.inflight, lifted.rates) == (None, None, ())


def test_no_rate_is_a_choice_of_its_own() -> None:
    """An empty rate in a plan is "no rate", not "as everybody"."""
    assert merge([Caps(rate="")], _all_caps()).rates == ()


def test_a_cap_of_zero_is_a_cap() -> None:
    """Zero refuses everything; it must never read as "not set"."""
    policy = merge([Caps(max_sites=0, max_inflight=0)], _all_caps())
    assert (policy.circulation, policy.document, policy.inflight) == (0, 0, 0)


def test_a_fraction_of_a_window_is_rounded_up_to_milliseconds() -> None:
    """A window that is too short would admit more than the cap in the one that was asked for."""
    assert merge([Caps(document_window=1.0001)]).document_window_ms == 1001
    assert merge([Caps(document_window=1.1)]).document_window_ms == 1100


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.SHADOW])
def test_mode_off_of_the_deployment_beats_every_tenants_mode(mode: Mode) -> None:
    """Off is the last resort of an operator; no plan may keep the guard on."""
    off = Policies(Caps(mode="off").over(DEFAULTS), [{"acme": Caps(mode=mode)}])
    assert off.static("acme").mode is Mode.OFF
    assert off.with_layers("acme", None, Caps(mode=mode), Caps(mode=mode)).mode is Mode.OFF


def test_an_override_of_the_deployment_to_off_beats_a_tenants_mode() -> None:
    """The same at run time, for all workers."""
    policies = Policies(DEFAULTS, [{"acme": Caps(mode="enforce")}])
    assert policies.with_layers("acme", None, None, Caps(mode="off")).mode is Mode.OFF


def test_shadow_of_the_deployment_holds_for_tenants_with_caps_but_no_mode() -> None:
    """The kill switch reaches the tenants that have a plan, too."""
    policies = Policies(DEFAULTS, [{"acme": Caps(max_sites=500)}])
    policy = policies.with_layers("acme", None, None, Caps(mode="shadow"))
    assert (policy.mode, policy.circulation) == (Mode.SHADOW, 500)


def test_an_override_of_the_deployment_leaves_every_tenant_its_own_caps() -> None:
    """What is kept for one tenant is not another's, though the same override holds for both."""
    policies = Policies(DEFAULTS, [{"acme": Caps(max_sites=500), "globex": Caps(max_sites=5)}])
    found = [policies.with_layers(tenant, None, None, Caps(rate="9/minute")) for tenant in ("acme", "globex", "else")]
    assert [(policy.circulation, policy.rates) for policy in found] == [
        (cap, (Rate(9, 60_000),)) for cap in (500, 5, 300)
    ]


def test_without_document_ids_there_is_no_document_cap() -> None:
    """An empty DOCUMENT turns the cap off whatever the layers say."""
    defaults = Caps(document_max_sites=5).over(DEFAULTS)
    policies = Policies(defaults, [{"acme": Caps(document_max_sites=6)}], documents=False)
    assert policies.static("acme").document is None
    assert policies.with_layers("acme", None, Caps(document_max_sites=7)).document is None


def test_layers_of_the_configuration_are_merged_nearest_first() -> None:
    """TENANT__ variables win over TENANTS, TENANTS over the file, one field at a time."""
    layers = [
        {"acme": Caps(max_sites=1)},
        {"acme": Caps(max_sites=2, rate="2/minute")},
        {"acme": Caps(max_sites=3, rate="3/minute", max_inflight=3), "beta": Caps()},
    ]
    policies = Policies(DEFAULTS, layers, known=["default"])
    acme = policies.static("acme")
    assert (acme.circulation, acme.rates, acme.inflight) == (1, (Rate(2, 60_000),), 3)
    assert [policies.known(tenant) for tenant in ("acme", "beta", "default", "Acme")] == [True, True, True, False]
    assert policies.configured() == ("acme", "beta")
    assert policies.by_tenant() == {"*": policies.static("else"), "acme": acme, "beta": policies.static("beta")}


def test_run_time_layers_stand_before_the_configuration() -> None:
    """override, caps=, configuration, overridden defaults, defaults: in this order."""
    defaults = Caps(max_inflight=1).over(DEFAULTS)
    policies = Policies(defaults, [{"acme": Caps(max_sites=20, rate="2/minute")}], inflight_global=99)
    policy = policies.with_layers(
        "acme", Caps(max_sites=30, rate="3/minute"), Caps(max_sites=40), Caps(max_inflight=2, max_sites=50)
    )
    assert (policy.circulation, policy.rates, policy.inflight) == (40, (Rate(3, 60_000),), 2)
    assert policy.inflight_global == 99


def test_a_policy_is_resolved_once() -> None:
    """The hot path must be a look-up; made-up tenant names must not fill memory."""
    policies = Policies(DEFAULTS, [{"acme": Caps(max_sites=1)}])
    assert policies.static("a") is policies.static("b")
    override = Caps(max_sites=2)
    assert policies.with_layers("a", None, override) is policies.with_layers("b", None, Caps(max_sites=2))
    assert policies.with_layers("acme", None, None, None) is policies.static("acme")


def test_resolved_policies_are_forgotten_in_time() -> None:
    """A caps= hook that gives every tenant another plan must not make the cache grow for ever."""
    policies = Policies(DEFAULTS)
    for sites in range(5000):
        assert policies.with_layers("a", Caps(max_sites=sites)).circulation == sites
    assert len(policies._layered) <= 4096


def test_a_share_divides_rate_and_in_flight_but_not_the_document() -> None:
    """While Redis is away four workers together must not admit four times the rate."""
    part = share(merge([Caps(max_sites=10, rate="100/minute; 1000/day", max_inflight=200)]), 4)
    assert part.rates == (Rate(25, 60_000), Rate(250, 86_400_000))
    assert (part.inflight, part.document, part.circulation) == (50, 10, 10)
    assert share(Policy(circulation=10, inflight_global=200), 4).inflight_global == 50


def test_a_share_lets_one_circulation_at_the_tenants_cap_through() -> None:
    """A share that is smaller than one circulation would refuse for ever what the cap allows."""
    part = share(merge([Caps(max_sites=300, rate="400/minute", max_inflight=100)]), 8)
    assert part.rates == (Rate(300, 60_000),)
    assert part.inflight == 100, "never above the cap itself"


def test_a_share_of_one_process_is_the_policy_itself() -> None:
    """One worker has everything."""
    policy = merge([_all_caps()])
    assert share(policy, 1) is policy


def test_a_share_for_a_tenant_without_circulation_cap_is_the_whole() -> None:
    """One circulation of such a tenant may be as large as the other caps allow."""
    assert share(merge([Caps(max_sites="unlimited", max_inflight=50)]), 4).inflight == 50


_CAPS = st.builds(
    Caps,
    max_sites=st.none() | st.integers(0, 10**9) | st.just("unlimited"),
    document_max_sites=st.none() | st.integers(0, 10**9) | st.just("unlimited"),
    document_window=st.none() | st.floats(1, 366 * 86_400),
    rate=st.none() | st.sampled_from(["", "5/minute", "1/second; 7/day"]),
    max_inflight=st.none() | st.integers(0, 10**9) | st.just("unlimited"),
    mode=st.none() | st.sampled_from(Mode),
)


@given(_CAPS, st.integers(1, 100))
def test_a_share_is_between_one_circulation_and_the_cap(caps: Caps, workers: int) -> None:
    """The bounds of a share hold whatever the caps are."""
    whole = merge([caps])
    part = share(whole, workers)
    pairs = [(a.limit, b.limit) for a, b in zip(whole.rates, part.rates, strict=True)]
    if whole.inflight is not None and part.inflight is not None:
        pairs.append((whole.inflight, part.inflight))
    for cap, of_one in pairs:
        assert of_one <= cap
        assert of_one >= min(cap, cap if whole.circulation is None else whole.circulation)


@given(_CAPS, _CAPS, _CAPS, _CAPS)
def test_layers_at_run_time_give_what_the_same_layers_of_a_configuration_give(
    override: Caps, hook: Caps, plan: Caps, defaults: Caps
) -> None:
    """One rule of precedence, wherever the caps come from."""
    policies = Policies(defaults.over(DEFAULTS), [{"acme": plan}])
    assert policies.with_layers("acme", hook, override) == merge([override, hook, plan], defaults)


def _all_caps() -> Caps:
    return Caps(max_sites=5, document_max_sites=6, document_window=7, rate="8/minute", max_inflight=9, mode=Mode.SHADOW)
