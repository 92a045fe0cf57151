"""Errors are what they were on the other side of a process, too."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

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


@pytest.mark.parametrize(("part", "module"), [("client", "httpx"), ("client", "http_sf"), ("fastapi", "fastapi")])
def test_a_part_without_its_extra_says_what_to_install(part: str, module: str) -> None:
    """The name of a module alone does not say which extra brings it."""
    code = f"import sys; sys.modules[{module!r}] = None; import fanout_guard.{part}"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    expected = f"fanout_guard.{part} needs {module}: pip install 'fanout-guard[{part}]'"
    assert ran.stderr.splitlines()[-1] == f"ModuleNotFoundError: {expected}"
