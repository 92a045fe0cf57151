"""Only the target that was meant is measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.plan import Plan
from benchmarks.target import Target, TargetFailed, example
from examples.publishing_api.servers import Servers, Setup, serve


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with serve(Setup(workers=1, slots=4, guarded=False, redis=False)) as running:
        yield running


def target_of(servers: Servers) -> Target:
    return Target(
        host=servers.api_url, plan=Plan(phases=()), tenant="a", lifted_tenant="b", servers=servers, guarded=False
    )


def test_the_server_that_was_started_is_accepted(servers: Servers) -> None:
    """The nonce of the run is what the health answers must carry."""
    target = target_of(servers)
    target.check()
    target.alive()
    assert target.pids == [servers.api.pid]


def test_a_cap_far_above_every_level_is_no_contradiction_to_the_bound_of_bodies() -> None:
    """The example did not start: its bound was made for the levels alone."""
    with example(Setup(workers=1, slots=4, redis=False), cap=300_000, largest=8, run="run") as target:
        target.check()


def test_a_stale_server_on_the_port_is_not_measured(servers: Servers) -> None:
    """A server of an earlier run that still holds the port would give the numbers of another product."""
    stale = target_of(replace(servers, nonce="of-another-run"))
    with pytest.raises(TargetFailed, match="another server"):
        stale.check()


def test_a_port_that_is_taken_fails_the_start(servers: Servers) -> None:
    """A bind error must not be followed by measuring whoever holds the port."""
    port = int(servers.api_url.rsplit(":", 1)[1])
    setup = Setup(workers=1, guarded=False, redis=False, port=port)
    with pytest.raises(TargetFailed), example(setup, cap=3, largest=3, run="r"):
        pass


def test_a_process_that_ended_is_noticed() -> None:
    """Without this a dead target would be found out by thousands of refused connections."""
    with serve(Setup(workers=1, slots=4, guarded=False, redis=False)) as running:
        target = target_of(running)
        running.sites.kill()
        running.sites.wait()
        with pytest.raises(TargetFailed, match="ended with status"):
            target.alive()


def test_a_host_that_does_not_listen_is_noticed() -> None:
    """Said before the first document is scheduled."""
    target = Target(host="http://127.0.0.1:9", plan=Plan(phases=()), tenant="a", lifted_tenant="a")
    with pytest.raises(TargetFailed, match=r"127\.0\.0\.1:9"):
        target.check()
