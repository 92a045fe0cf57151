"""For every test."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and what tests start would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
