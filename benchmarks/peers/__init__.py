"""``peers``: see ``command``; imported lazily, since half of this package runs in another environment."""

from __future__ import annotations

from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    from benchmarks.peers.command import register as add

    add(commands)
