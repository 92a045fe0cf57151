"""Errors are what they were on the other side of a process, too."""

from __future__ import annotations

import copy
import pickle

import pytest

from fanout_guard import ConfigurationError, FanoutGuard, FanoutRejected, Settings
from fanout_guard.errors import CirculationError, CountersUnavailable, FanoutGuardError, UnknownTenant


async def test_a_rejection_crosses_to_another_process() -> None:
    """A pool of worker processes that cannot read an error breaks, and with it everybody else's work."""
    guard = FanoutGuard(Settings.from_env({}))
    rejected = FanoutRejected(await guard.admit(document="d-1", sites=["Site"] * 301))
    read = pickle.loads(pickle.dumps(rejected))
    assert (read.decision, str(read)) == (rejected.decision, "circulation rejected by the circulation cap")


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError(["a problem", "another"]),
        CirculationError("the document id is empty"),
        UnknownTenant("acme"),
        CountersUnavailable("timeout", sent=False, alone=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_says_the_same_in_another_process(error: FanoutGuardError) -> None:
    """What a worker process reports is read where it was started."""
    for read in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(read), str(read), vars(read)) == (type(error), str(error), vars(error))
