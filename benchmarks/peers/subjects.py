"""What is measured: one way to decide on a circulation, and how it is opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import NamedTuple, TypeAlias

ENTRIES = 300
"""The cost of one decision, where a library knows costs."""
LIMIT = 1_000_000_000
"""High enough that every decision is an admission, for all alike."""
TENANTS = 8

Decide: TypeAlias = Callable[[str], Awaitable[object]]
"""Decide on one circulation of a tenant; raises where it was not admitted."""
Open: TypeAlias = Callable[[str], AbstractAsyncContextManager[Decide]]
"""Connects to the server at an address."""


class Role(StrEnum):
    """Which side of a comparison a subject stands on."""

    GUARD = "guard"
    PEER = "peer"
    FLOOR = "floor"


class Subject(NamedTuple):
    """One row of the comparison; ``cannot`` says what it leaves out of the work that the guard does."""

    name: str
    role: Role
    open: Open
    cannot: str = ""
    tenants: int = TENANTS
    levels: tuple[int, ...] = (1, 64, 256)


class NotAdmitted(RuntimeError):
    """Raised when a decision refuses, which no measured decision may."""


def admitted(answer: object) -> None:
    """Raise NotAdmitted unless ``answer`` is true."""
    if not answer:
        raise NotAdmitted(f"answered {answer!r}")
