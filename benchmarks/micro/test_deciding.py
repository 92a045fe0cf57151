"""From a circulation to a decision, without a server."""

from __future__ import annotations

from itertools import count

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fanout_guard.core.decide import Asked, decide
from fanout_guard.core.digests import Digests
from fanout_guard.core.headers import ratelimit, ratelimit_policy
from fanout_guard.core.keys import LEASES_KEY, KeySpace, new_id
from fanout_guard.core.model import Charge, Lease, Policy, Rate, Reading, Tally
from fanout_guard.counters.scripts import join, pack_decide

ALL_CAPS = Policy(rates=(Rate(6000, 60_000), Rate(100_000, 86_400_000)), inflight=1000, inflight_global=5000)
ASKED = Asked("acme", "d-1", 300, 300)
DIGESTS = Digests("secret")


def sites(first: int = 0) -> list[str]:
    """300 names of sites."""
    return [f"https://site-{number}.example" for number in range(first, first + 300)]


def lease() -> Lease:
    """A fresh lease on a document."""
    return Lease(new_id(), DIGESTS.document("d-1"))


def test_digests_of_sites_seen_before(benchmark: BenchmarkFixture) -> None:
    """What a tenant's next document mostly goes to."""
    benchmark(DIGESTS.sites, sites(), "\0".join(sites()))


def test_digests_of_sites_never_seen(benchmark: BenchmarkFixture) -> None:
    """What the first document to a list of sites costs."""
    digests, first = Digests("secret"), count(0, 300)
    benchmark.pedantic(digests.sites, setup=lambda: ((sites(next(first)),), {}), rounds=2000)  # type: ignore[no-untyped-call]


def test_pack(benchmark: BenchmarkFixture) -> None:
    """One decision as it goes to the server, under all caps."""
    space = KeySpace("fanout")
    charge = Charge(
        lease=lease(), tenant="acme", cost=300, sites=DIGESTS.sites(sites()), policy=ALL_CAPS, lease_ms=60_000
    )
    benchmark(lambda: join("decide", [pack_decide(charge, space)], space.everybody + LEASES_KEY))


@pytest.mark.parametrize("used", [0, 5900], ids=["admitted", "refused"])
def test_core_decide(benchmark: BenchmarkFixture, used: int) -> None:
    """The decision from what the counters answered, under all caps."""
    readings = tuple(
        Reading(name, limit, used if name == "rate-60" else 0, 300, 0, 1000)
        for name, limit in ALL_CAPS.limits
        if name != "circulation"
    )
    tally = Tally(used == 0, readings)
    assert decide(ALL_CAPS, ASKED, tally, lease()).admitted is (used == 0)
    benchmark(lambda: decide(ALL_CAPS, ASKED, tally, lease()))


def test_response_fields(benchmark: BenchmarkFixture) -> None:
    """RateLimit and RateLimit-Policy of a response, under all caps."""
    readings = tuple(Reading(name, limit, 0, 300, 0, 1000) for name, limit in ALL_CAPS.limits if name != "circulation")
    decision = decide(ALL_CAPS, ASKED, Tally(True, readings), lease())
    benchmark(lambda: (ratelimit_policy(decision.caps), ratelimit(decision)))
