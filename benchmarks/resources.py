"""What the sampler saw, by level: CPU, memory, pressure and Redis figures between two moments."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import DecodeError
from msgspec.json import Decoder

from benchmarks.sampler import Reading

READINGS = Decoder(Reading)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One level of one sweep; percent of one core for processes, of all cores for the machine."""

    cpu_percent: float | None = None
    rss_mb: float | None = None
    rss_growth_mb: float | None = None
    generator_cpu_percent: float | None = None
    other_cpu_percent: float | None = None
    pressure_percent: float | None = None
    more: dict[str, float | None] = field(default_factory=dict)


def between(readings: Sequence[Reading], begin: float, end: float, *, documents: int) -> Figures:
    """Figures from the last reading before ``begin`` to the first after ``end``; empty without two."""
    before = [reading for reading in readings if reading.at <= begin]
    after = [reading for reading in readings if reading.at >= end]
    inside = [reading for reading in readings if begin < reading.at < end]
    span = before[-1:] + inside + after[:1]
    if len(span) < 2:
        return Figures()
    first, last = span[0], span[-1]
    seconds = last.at - first.at
    target = _rate(first.target_cpu_s, last.target_cpu_s, seconds)
    generator = _rate(first.generator_cpu_s, last.generator_cpu_s, seconds)
    helpers = _rate(first.helpers_cpu_s, last.helpers_cpu_s, seconds)
    busy = _rate(first.busy_total_s, last.busy_total_s, seconds) or 0.0
    ours = sum(percent or 0.0 for percent in (target, generator, helpers))
    rss = [reading.target_rss_mb for reading in span if reading.target_rss_mb is not None]
    return Figures(
        cpu_percent=target,
        rss_mb=max(rss) if rss else None,
        rss_growth_mb=rss[-1] - rss[0] if rss else None,
        generator_cpu_percent=generator,
        other_cpu_percent=max(busy - ours, 0.0) / last.cores,
        pressure_percent=_rate(first.pressure_total_s, last.pressure_total_s, seconds),
        # The first document of the next level may be decided before the next reading: stop short of it.
        more=_more(first, inside[-1] if inside else last, documents),
    )


def _more(first: Reading, last: Reading, documents: int) -> dict[str, float | None]:
    seconds = last.at - first.at
    more = {
        "steal_percent": _rate(first.steal_total_s, last.steal_total_s, seconds * last.cores),
        "memory_pressure_percent": _rate(first.memory_pressure_total_s, last.memory_pressure_total_s, seconds),
        "cgroup_throttled_percent": _rate(first.cgroup_throttled_s, last.cgroup_throttled_s, seconds),
        "cgroup_memory_mb": last.cgroup_memory_mb,
    }
    if first.redis and last.redis:
        grown = {name: last.redis[name] - value for name, value in first.redis.items() if name in last.redis}
        more |= {
            "redis_ops_per_s": grown.get("total_commands_processed", 0.0) / seconds,
            "redis_script_calls_per_document": grown.get("evalsha_calls", 0.0) / max(documents, 1),
            "redis_script_us_per_document": grown.get("evalsha_usec", 0.0) / max(documents, 1),
            "redis_evicted_keys": grown.get("evicted_keys"),
            "redis_memory_mb": last.redis.get("used_memory", 0.0) / 1e6,
            "redis_clients": last.redis.get("connected_clients"),
        }
    return {name: value for name, value in more.items() if value is not None}


def _rate(first: float | None, last: float | None, seconds: float) -> float | None:
    if first is None or last is None or seconds <= 0:
        return None
    return max(last - first, 0.0) / seconds * 100


def read(path: Path) -> list[Reading]:
    """What the sampler wrote; a line cut short by its end is left out."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        with suppress(DecodeError):
            found.append(READINGS.decode(line))
    return found


@contextmanager
def watch(
    path: Path, *, target: Sequence[int], generator: Sequence[int], helpers: Sequence[int], redis_url: str | None
) -> Iterator[None]:
    """Sample into a file until the block ends; one that ends without an error gets a reading after its last level."""
    command = [sys.executable, "-m", "benchmarks.sampler", "--target", *map(str, target)]
    command += ["--generator", *map(str, generator), "--helpers", *map(str, helpers)]
    command += ["--redis", redis_url] if redis_url else []
    with path.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=Path(__file__).parents[1], stdout=output, stdin=subprocess.DEVNULL, process_group=0
        )
        try:
            yield
            time.sleep(0.6)  # longer than the sampler's interval
        finally:
            process.terminate()
            process.wait()
