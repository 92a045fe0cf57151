"""The guard's logger, and how to log while a request waits."""

from __future__ import annotations

import logging
from contextlib import suppress

logger = logging.getLogger("fanout_guard")


def tell(level: int, message: str, *arguments: object, **fields: object) -> None:
    """Log a record with ``fields`` of its own; a handler of the application's that fails stops no request."""
    with suppress(Exception):
        logger.log(level, message, *arguments, extra=fields, stacklevel=2)
