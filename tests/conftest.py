"""For every test."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test is about how fast the machine is, and several run at once.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """What the shell that runs the tests has set for guards of its own is not for theirs, nor for what they start.

    Nor is SIGINT ignored there, as a shell has it in what it runs in its background.
    """
    for name in [name for name in os.environ if name.startswith(("FANOUT_GUARD_", "PROMETHEUS_"))]:
        del os.environ[name]
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def failing_log() -> Iterator[None]:
    """A handler of the application's that raises, as one does whose log shipper is down."""

    class Failing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ConnectionError("the log shipper is down")

    handler, logger = Failing(), logging.getLogger("fanout_guard")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
