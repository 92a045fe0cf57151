"""What ``peers`` measured, as it travels from the process that measured to the one that judges."""

from __future__ import annotations

from msgspec import Struct


class Level(Struct, frozen=True):
    """Medians over the rounds at one number of decisions at once; ``error`` instead of them where it failed."""

    rate: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    worker_us: float = 0.0
    server_us: float = 0.0
    error: str = ""


class Measured(Struct, frozen=True):
    """One subject. Bytes are Redis's: what a tenant keeps anyway, and what each decision leaves for a while."""

    name: str
    role: str
    cannot: str
    levels: dict[int, Level]
    tenant_bytes: int = 0
    decision_bytes: int = 0


class Run(Struct, frozen=True):
    """One run on one event loop."""

    loop: str
    server: str
    versions: dict[str, str]
    subjects: list[Measured]
    document_bytes: int
    window_bytes: int
    block_ms: float
    unguarded_us: float
    guarded_in_parses: float
    http_share: float
    pipelined_rate: float | None = None

    def subject(self, name: str) -> Measured:
        """The subject of that name."""
        return next(each for each in self.subjects if each.name == name)


class Point(Struct, frozen=True):
    """What was measured at one size."""

    size: int
    level: Level


class Growth(Struct, frozen=True):
    """Every curve, smallest size first."""

    sites: list[Point]
    tenants: list[Point]
    workers: list[Point]
    at_once: list[Point]
    rival_at_once: list[Point]
