"""Exit statuses of every command."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command found; ``INTERRUPTED`` is what shells expect after Ctrl-C."""

    DONE = 0
    NO = 1
    BAD = 2
    UNKNOWN = 3
    INTERRUPTED = 130
