"""What ``isolation`` measured, as ``isolation.json`` keeps it for the report of a sweep in the same folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import DecodeError
from msgspec.json import decode, encode, format  # noqa: A004

from benchmarks.options import BadUsage

FILE = "isolation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Bystanders in one situation; ``ratio`` is their p95 against being alone, with its 95 % bounds."""

    name: str
    latencies_ms: tuple[float, ...]
    failed: int
    flood_documents: int
    flood_refused: int
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    ratio: float = 1.0
    low: float = 1.0
    high: float = 1.0

    @property
    def documents(self) -> int:
        """All that bystanders sent."""
        return len(self.latencies_ms) + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The answer; ``verdict`` is ``pass``, ``fail`` or ``inconclusive``."""

    verdict: str
    reason: str
    stages: tuple[Stage, ...]
    environment: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """As everywhere in the suite."""
        return {"pass": 0, "fail": 1, "inconclusive": 3}[self.verdict]


def write_isolation(folder: Path, isolation: Isolation) -> None:
    """Leave the answer in a folder."""
    (folder / FILE).write_bytes(format(encode(isolation), indent=1))


def read_isolation(folder: Path) -> Isolation | None:
    """What is left in a folder, None where nothing is; raises BadUsage for half a file, or another one."""
    path = folder / FILE
    try:
        return decode(path.read_bytes(), type=Isolation) if path.exists() else None
    except (DecodeError, ValueError) as error:
        raise BadUsage(f"{path}: {error}; remove it, or repeat the isolation test") from error
