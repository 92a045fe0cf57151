"""For every test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test is about how fast the machine is, and several run at once.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and what tests start would inherit that."""
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
