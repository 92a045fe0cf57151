"""Old and new workers side by side, as ``docs/upgrades.md`` says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from examples.publishing_api.servers import valkey
from fanout_guard.core.keys import FORMAT
from tests.docs.blocks import ROOT

WORKER = """
import asyncio, sys
from fanout_guard.core import keys

url, keys.FORMAT, prefix, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

from fanout_guard import FanoutGuard, Settings

async def main():
    guard = FanoutGuard(Settings.from_env({
        "FANOUT_GUARD_REDIS_URL": url, "FANOUT_GUARD_KEY_PREFIX": prefix, "FANOUT_GUARD_REDIS_TIMEOUT": "5",
        "FANOUT_GUARD_RATE": "300/hour", "FANOUT_GUARD_MAX_INFLIGHT": "300",
    }))
    decision = await guard.admit(tenant="acme", document="d-1", sites=[f"Site{n}" for n in range(count)])
    print("admitted" if decision.admitted else "rejected", decision.lease_id)
    if decision.admitted and not decision.degraded:
        stands = await guard.usage("acme")
        print(*(stands[name].used for name in ("rate-3600", "inflight")))
    await guard.aclose()

asyncio.run(main())
"""


@pytest.fixture
def url() -> Iterator[str]:
    """A server for this test."""
    with valkey() as address:
        yield address


def worker(url: str, *, release: int = FORMAT, prefix: str = "fanout", sites: int = 300) -> list[str]:
    """What a worker of a key format prints, in its own process."""
    command = [sys.executable, "-c", WORKER, url, str(release), prefix, str(sites)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.split()


@pytest.mark.parametrize(("release", "prefix"), [(FORMAT + 1, "fanout"), (FORMAT, "fanout-b")])
def test_two_formats_do_not_read_each_other(url: str, release: int, prefix: str) -> None:
    """A worker that misread the other's state could admit anything; so it is at most twice the cap."""
    assert worker(url)[0] == "admitted"
    assert worker(url)[0] == "rejected"
    outcome, _, *used = worker(url, release=release, prefix=prefix)
    assert (outcome, used) == ("admitted", ["300", "300"])
    assert worker(url, release=release, prefix=prefix)[0] == "rejected"
    assert worker(url)[0] == "rejected"


def test_workers_of_one_format_share_what_they_count(url: str) -> None:
    """A rolling deploy without a new format changes nothing."""
    assert worker(url, sites=200)[0] == "admitted"
    assert worker(url, sites=200)[0] == "rejected"
    assert worker(url, sites=100)[0] == "admitted"
