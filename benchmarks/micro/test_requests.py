"""Whole requests through the middleware, with counters in this process and without a server."""

from __future__ import annotations

from collections.abc import Coroutine
from itertools import count
from typing import Any, cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.middleware_cost import app, circulation_body, ignore, receiver, request
from fanout_guard import FanoutGuardMiddleware, Settings
from fanout_guard.types import ASGIApp, Receive, Scope


def run(target: ASGIApp, scope: Scope, receive: Receive) -> None:
    """One request that never waits, without a loop's own cost."""
    try:
        cast("Coroutine[Any, Any, None]", target(scope, receive, ignore)).send(None)
    except StopIteration:
        return
    raise AssertionError("it waited for something")


def guarded() -> FanoutGuardMiddleware:
    """The application behind a guard as it is configured by default."""
    return FanoutGuardMiddleware(app, settings=Settings.from_env({}))


@pytest.mark.parametrize("through", [lambda: app, guarded], ids=["bare", "through"])
def test_unguarded_request(benchmark: BenchmarkFixture, through: Any) -> None:
    """What everybody else's requests pay."""
    target: ASGIApp = through()
    scope, receive = request("/other", b""), receiver(b"")
    benchmark(lambda: run(target, scope, receive))


@pytest.mark.parametrize("through", [lambda: app, guarded], ids=["bare", "guarded"])
def test_request_of_300_sites(benchmark: BenchmarkFixture, through: Any) -> None:
    """A document of its own to 300 sites, decided on and settled."""
    target: ASGIApp = through()
    numbers = count()

    def prepared() -> tuple[tuple[ASGIApp, Scope, Receive], dict[str, Any]]:
        body = circulation_body(next(numbers))
        return (target, request("/circulate-document", body), receiver(body)), {}

    benchmark.pedantic(run, setup=prepared, rounds=5000, warmup_rounds=200)  # type: ignore[no-untyped-call]
