"""Samples CPU, memory, pressure and Redis figures: ``python -m benchmarks.sampler``.

Its own process, because neither the load generator nor the target may pay for being watched. Writes one JSON
line per interval to standard output; cumulative figures stay cumulative, ``resources`` takes the differences.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from msgspec import Struct
from msgspec.json import encode

CGROUP = Path("/sys/fs/cgroup")
REDIS_FIGURES = ("total_commands_processed", "used_memory", "evicted_keys", "connected_clients")


class Reading(Struct, frozen=True, kw_only=True):
    """One moment; CPU in seconds since each process began, ``*_total_s`` of the whole machine."""

    at: float
    target_cpu_s: float | None = None
    target_rss_mb: float | None = None
    generator_cpu_s: float = 0.0
    helpers_cpu_s: float = 0.0
    busy_total_s: float = 0.0
    steal_total_s: float = 0.0
    cores: int = 1
    pressure_total_s: float | None = None
    memory_pressure_total_s: float | None = None
    cgroup_throttled_s: float | None = None
    cgroup_memory_mb: float | None = None
    redis: dict[str, float] = {}


class Tree:
    """A process and its children; what ended children used stays counted."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._roots = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        self._seen: dict[int, float] = {}

    def read(self) -> tuple[float, float]:
        """CPU seconds and resident MB of all."""
        rss = 0
        for process in self._all():
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._seen[process.pid] = times.user + times.system
                    rss += process.memory_info().rss
            except psutil.Error:
                continue
        return sum(self._seen.values()), rss / 1e6

    def _all(self) -> Iterable[psutil.Process]:
        for root in self._roots:
            yield root
            try:
                yield from root.children(recursive=True)
            except psutil.Error:
                continue


def pressure(resource: str) -> float | None:
    """Seconds that some task waited for a resource since the machine started, or None without PSI."""
    try:
        some = Path(f"/proc/pressure/{resource}").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    return int(some.rsplit("total=", 1)[1]) / 1e6


def cgroup_of(pid: int) -> Path | None:
    """The cgroup v2 folder of a process, or None."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return None
    folder = CGROUP / own.lstrip("/")
    return folder if (folder / "cpu.stat").exists() else None


def throttled(folder: Path) -> float | None:
    """Seconds that a cgroup was throttled."""
    for line in (folder / "cpu.stat").read_text().splitlines():
        if line.startswith("throttled_usec"):
            return int(line.split()[1]) / 1e6
    return None


def cgroup_memory(folder: Path) -> float | None:
    """Memory of a cgroup in MB."""
    try:
        return int((folder / "memory.current").read_text()) / 1e6
    except (OSError, ValueError):
        return None


def redis_reader(url: str | None) -> Callable[[], dict[str, float]]:
    """A function that reads ``INFO``; one that knows nothing without a server."""
    if not url:
        return dict
    import redis

    client = redis.Redis.from_url(url, socket_timeout=1, decode_responses=True)

    def read() -> dict[str, float]:
        try:
            info = client.info()
            scripts = client.info("commandstats")
        except redis.RedisError:
            return {}
        figures = {name: float(info[name]) for name in REDIS_FIGURES if name in info}
        script = scripts.get("cmdstat_evalsha", {})
        return figures | {f"evalsha_{name}": float(script.get(name, 0)) for name in ("calls", "usec")}

    return read


def sample(target: list[int], generator: list[int], helpers: list[int], redis_url: str | None, interval: float) -> None:
    """Write readings until the parent goes away."""
    of_target, of_generator, of_helpers = Tree(target), Tree(generator), Tree(helpers)
    read_redis = redis_reader(redis_url)
    folder = cgroup_of(target[0]) if target else None
    parent = os.getppid()
    while os.getppid() == parent:  # a command that was killed leaves no sampler behind
        cpu, rss = of_target.read()
        machine = psutil.cpu_times()
        reading = Reading(
            at=time.time(),
            target_cpu_s=cpu if target else None,
            target_rss_mb=rss if target else None,
            generator_cpu_s=of_generator.read()[0],
            helpers_cpu_s=of_helpers.read()[0],
            busy_total_s=sum(machine) - machine.idle - machine.iowait - machine.guest - machine.guest_nice,
            steal_total_s=machine.steal,
            cores=psutil.cpu_count() or 1,
            pressure_total_s=pressure("cpu"),
            memory_pressure_total_s=pressure("memory"),
            cgroup_throttled_s=throttled(folder) if folder else None,
            cgroup_memory_mb=cgroup_memory(folder) if folder else None,
            redis=read_redis(),
        )
        sys.stdout.buffer.write(encode(reading) + b"\n")
        sys.stdout.buffer.flush()
        time.sleep(interval)


def main() -> None:
    """Read the options and sample until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=int, nargs="*", default=[])
    parser.add_argument("--generator", type=int, nargs="*", default=[])
    parser.add_argument("--helpers", type=int, nargs="*", default=[], help="neither: the site receivers")
    parser.add_argument("--redis")
    parser.add_argument("--interval", type=float, default=0.5)
    options = parser.parse_args()
    try:
        sample(options.target, options.generator, options.helpers, options.redis, options.interval)
    except (KeyboardInterrupt, BrokenPipeError):
        return


if __name__ == "__main__":
    main()
