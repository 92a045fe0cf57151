"""CPU, memory and pressure of one level, from cumulative readings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.resources import between
from benchmarks.sampler import Reading, Tree, cgroup_memory, cgroup_of, pressure, throttled


def reading(at: float, **changes: float) -> Reading:
    figures = {"target_cpu_s": at * 0.5, "target_rss_mb": 40 + at, "generator_cpu_s": at * 0.1, "busy_total_s": at}
    return Reading(at=at, cores=2, **(figures | {"pressure_total_s": at * 0.2} | changes))  # type: ignore[arg-type]


def test_rates_come_from_the_readings_around_the_level() -> None:
    """Percent of one core for processes, of all cores for what others used."""
    figures = between([reading(at / 2) for at in range(20)], 2.1, 4.9, documents=5)
    assert figures.cpu_percent == pytest.approx(50)
    assert figures.generator_cpu_percent == pytest.approx(10)
    assert figures.other_cpu_percent == pytest.approx(20)
    helped = between([reading(at / 2, helpers_cpu_s=at / 10) for at in range(20)], 2.1, 4.9, documents=5)
    assert helped.other_cpu_percent == pytest.approx(10)
    assert figures.pressure_percent == pytest.approx(20)
    assert figures.rss_mb == pytest.approx(45)
    assert figures.rss_growth_mb == pytest.approx(3)


def test_what_was_not_measured_is_unknown_not_zero() -> None:
    """A remote target has no figures here, and a goal on them cannot hold by default."""
    remote = [Reading(at=float(at)) for at in range(4)]
    figures = between(remote, 1.0, 2.0, documents=1)
    assert (figures.cpu_percent, figures.rss_mb, figures.pressure_percent) == (None, None, None)
    assert between(remote[:1], 1.0, 2.0, documents=1).other_cpu_percent is None


def test_redis_figures_are_differences_per_document() -> None:
    """One script call per document is a promise of the guard, so the report shows it."""
    first = {"total_commands_processed": 10.0, "evalsha_calls": 3.0, "evalsha_usec": 100.0, "used_memory": 1e6}
    last = {"total_commands_processed": 30.0, "evalsha_calls": 13.0, "evalsha_usec": 1100.0, "used_memory": 2e6}
    span = [Reading(at=0.0, redis=first), Reading(at=10.0, redis=last)]
    more = between(span, 0.0, 10.0, documents=10).more
    assert more["redis_script_calls_per_document"] == 1.0
    assert more["redis_script_us_per_document"] == 100.0
    assert more["redis_ops_per_s"] == 2.0
    assert more["redis_memory_mb"] == 2.0


def test_the_next_levels_documents_are_not_this_ones() -> None:
    """Its first one may be decided before the reading that ends this level."""
    calls = (0.0, 10.0, 11.0)
    span = [Reading(at=float(at), redis={"evalsha_calls": count}) for at, count in enumerate(calls)]
    assert between(span, 0.0, 1.9, documents=10).more["redis_script_calls_per_document"] == 1.0


def test_what_slows_a_target_from_outside_is_a_share_of_the_time() -> None:
    """Stolen time of all cores; throttling and pressure of the one target; keys that were evicted meanwhile."""
    first = Reading(at=0.0, cores=2, cgroup_throttled_s=5.0, memory_pressure_total_s=3.0, redis={"evicted_keys": 7.0})
    last = Reading(
        at=10.0,
        cores=2,
        steal_total_s=4.0,
        cgroup_throttled_s=6.0,
        memory_pressure_total_s=3.5,
        cgroup_memory_mb=64.0,
        redis={"evicted_keys": 9.0},
    )
    more = between([first, last], 0.0, 10.0, documents=1).more
    assert (more["steal_percent"], more["cgroup_throttled_percent"]) == (20.0, 10.0)
    assert (more["memory_pressure_percent"], more["cgroup_memory_mb"], more["redis_evicted_keys"]) == (5.0, 64.0, 2.0)


def test_this_process_is_measured() -> None:
    """The sampler reads real processes."""
    cpu, rss = Tree([os.getpid()]).read()
    assert cpu > 0
    assert rss > 1
    assert Tree([]).read() == (0.0, 0.0)


def test_what_an_ended_process_has_used_stays_counted() -> None:
    """Else a target that lost a worker would look as if it had become cheaper."""
    work = "import time\nwhile time.process_time() < 0.1:\n    pass\nprint(flush=True)\ninput()"
    command = [sys.executable, "-c", work]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tree = Tree([process.pid])
        cpu, _ = tree.read()
        process.kill()
    assert cpu > 0
    assert tree.read() == (cpu, 0.0)


def test_the_limits_of_a_container_are_read(tmp_path: Path) -> None:
    """A target that its cgroup throttles is slow whatever its cap is; the root cgroup has no figure of its memory."""
    (tmp_path / "cpu.stat").write_text("usage_usec 9000000\nnr_throttled 4\nthrottled_usec 2500000\n")
    assert (throttled(tmp_path), cgroup_memory(tmp_path)) == (2.5, None)
    (tmp_path / "memory.current").write_text("64000000\n")
    assert cgroup_memory(tmp_path) == 64


def test_a_system_without_pressure_or_cgroups_is_no_error() -> None:
    """Not every kernel has them."""
    assert pressure("no-such-resource") is None
    assert cgroup_of(2**30) is None
