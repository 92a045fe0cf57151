"""Decisions to watch, and a clock to move by hand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import pytest

from fanout_guard.core.model import Decision, Outcome, Policy

Decide: TypeAlias = Callable[..., Decision]


@pytest.fixture(scope="session")
def decide() -> Decide:
    """Return a maker of decisions; by default a small admitted circulation of the tenant ``acme``."""

    def make(outcome: Outcome = Outcome.ADMITTED, **fields: Any) -> Decision:
        given: dict[str, Any] = {
            "admitted": outcome is not Outcome.REJECTED,
            "outcome": outcome,
            "tenant": "acme",
            "document": "d-1",
            "requested": 10,
            "caps": Policy(),
        }
        return Decision(**(given | fields))

    return make


@pytest.fixture(scope="session")
def reject(decide: Decide) -> Decide:
    """Return a maker of rejections; by default 400 sites over the circulation cap of 300."""

    def make(policy: str = "circulation", **fields: Any) -> Decision:
        given: dict[str, Any] = {"requested": 400, "policy": policy, "violated": (policy,), "limit": 300}
        return decide(Outcome.REJECTED, **(given | fields))

    return make


@pytest.fixture(scope="session")
def shadow(decide: Decide) -> Decide:
    """Return a maker of what shadow mode lets through, told as a rejection is; by default as ``reject``."""

    def make(*policies: str, **fields: Any) -> Decision:
        named = policies or ("circulation",)
        given: dict[str, Any] = {"requested": 400, "policy": named[0], "violated": named, "limit": 300}
        return decide(Outcome.SHADOWED, **(given | {"shadowed": named} | fields))

    return make


class HandClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Collect what the logger of the package writes, at the level that a default configuration shows."""
    with caplog.at_level(logging.WARNING, logger="fanout_guard"):
        yield caplog
