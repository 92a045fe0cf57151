"""For every test."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# No test is about how fast the machine is, and several run at once.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and what tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
