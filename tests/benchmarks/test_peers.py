"""The comparison with peers: what it measures and how it judges, not how fast anything is today."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from benchmarks.peers import guard, instructions, ratios, text
from benchmarks.peers.command import register
from benchmarks.peers.figures import Growth, Level, Measured, Point, Run
from benchmarks.peers.load import Load
from benchmarks.peers.plots import draw
from benchmarks.peers.server import valkey
from benchmarks.peers.subjects import NotAdmitted, Role, Subject
from benchmarks.peers.targets import TARGETS

FAST = Level(rate=60_000, p50_ms=1, p99_ms=2, worker_us=10, server_us=5)
SLOW = Level(rate=10_000, p50_ms=2, p99_ms=20, worker_us=40, server_us=10)


def levels(level: Level) -> dict[int, Level]:
    """The same figures at every number of decisions at once."""
    return dict.fromkeys((1, 64, 256), level)


def a_run(**changes: object) -> Run:
    """A run in which the guard is six times as fast as its only peer that works."""
    guards = [Measured(subject.name, Role.GUARD, "", levels(FAST)) for subject in guard.GUARDS]
    peers = [
        Measured("slow", Role.PEER, "", levels(SLOW)),
        Measured("broken", Role.PEER, "", levels(Level(error="MaxConnectionsError: too many"))),
        Measured("floor", Role.FLOOR, "", levels(replace(SLOW, rate=1e9))),
    ]
    run = Run(
        loop="asyncio",
        server="Valkey 9",
        versions={},
        subjects=guards + peers,
        document_bytes=2_500,
        window_bytes=500,
        block_ms=1.5,
        unguarded_us=0.4,
        guarded_in_parses=5,
        http_share=0.8,
    )
    return replace(run, **changes)


def row(table: ratios.Table, name: str) -> ratios.Row:
    """The row whose name starts so."""
    return next(each for each in table.rows if each.name.startswith(name))


def test_a_ratio_is_against_the_best_peer_that_works() -> None:
    """Neither a peer that fails nor the floor, which is no library, may decide what the guard is compared with."""
    table = ratios.table([a_run()], {})
    assert row(table, "one cap, 64").values == {"asyncio": [6.0]}
    assert row(table, "one cap, 64").met
    assert not row(table, "one cap, 256").met


def test_a_bound_holds_only_if_every_run_holds_it() -> None:
    """Three runs out of three is the rule; the middle one would hide a bad one."""
    table = ratios.table([a_run(), a_run(http_share=0.69), a_run()], {})
    assert row(table, "HTTP").values == {"asyncio": [0.8, 0.69, 0.8]}
    assert not row(table, "HTTP").met


@pytest.mark.parametrize(("share", "found"), [(0.61, 0), (0.59, 1)])
def test_a_ratio_that_fell_by_a_quarter_is_found(share: float, found: int) -> None:
    """The check is for regressions, so that what is not yet met does not fail it every day."""
    before, now = ratios.table([a_run()], {}), ratios.table([a_run(http_share=share)], {})
    assert len(ratios.fallen(before, now)) == found


def test_less_is_better_where_a_row_says_so() -> None:
    """A cost that grows by a third is as bad as a rate that falls by a quarter."""
    before, now = ratios.table([a_run()], {}), ratios.table([a_run(block_ms=2.1)], {})
    assert [line.partition(" (")[0] for line in ratios.fallen(before, now)] == [
        "Redis blocked by one batch of 10,000 sites"
    ]


def test_the_committed_table_can_be_read_and_has_every_row() -> None:
    """The check compares with it, and would otherwise fail on the day that somebody needs it."""
    table = ratios.read()
    assert [each.name for each in table.rows] == [target.name for target in TARGETS]
    assert table.environment["cpu"]


def test_a_table_survives_its_file(tmp_path: Path) -> None:
    """What is committed is what was measured."""
    table = ratios.table([a_run()], {"commit": "abc"})
    ratios.write(table, tmp_path / "ratios.json")
    assert ratios.read(tmp_path / "ratios.json") == table


def test_a_row_says_what_a_peer_cannot_do() -> None:
    """A number beside a library that did less work would be read as a comparison."""
    lines = list(text.lines(ratios.table([a_run()], {})))
    assert any("broken" in line and "MaxConnectionsError" in line and "–" in line for line in lines)
    assert any("**not met**" in line for line in lines)


@pytest.mark.parametrize("subject", [guard.ONE, guard.ALL, guard.RETURNED], ids=lambda subject: subject.name)
async def test_what_is_measured_is_an_admission_by_the_server(subject: Subject) -> None:
    """A decision without the counters, or a refusal, would be fast and mean nothing."""
    with valkey() as server:
        async with subject.open(server.url) as decide:
            load = Load(decide, server, at_once=8, tenants=2)
            block = await load.run(seconds=0.05, warm_up=0)
        assert any(b"tenant-1" in key for key in server.memory())
    assert block.rate > 0
    assert 0 < block.p50_ms <= block.p99_ms


async def test_a_refusal_ends_the_measurement() -> None:
    """An adapter that does not notice refusals would measure how fast a library refuses."""

    async def refuse(tenant: str) -> None:
        await asyncio.sleep(0)
        raise NotAdmitted(tenant)

    with valkey() as server, pytest.raises(ExceptionGroup) as found:
        await Load(refuse, server, at_once=2, tenants=2).run(seconds=0.05, warm_up=0)
    assert found.group_contains(NotAdmitted)


def test_growth_is_drawn(tmp_path: Path) -> None:
    """The README shows it."""
    points = [Point(size, FAST) for size in (1, 2, 4)]
    growth = Growth(points, points, points, points, points)
    assert "decisions per second" in draw(growth, tmp_path).read_text()


def test_the_command_is_part_of_the_suite() -> None:
    """``python -m benchmarks peers`` is how the table is made again."""
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    given = parser.parse_args(["peers", "--quick", "--loop", "uvloop", "--runs", "3"])
    assert (given.loop, given.runs, given.quick) == ("uvloop", 3, True)


def test_the_page_keeps_what_stands_around_the_table(tmp_path: Path) -> None:
    """The table is made by a program, the words around it by people."""
    page = tmp_path / "README.md"
    page.write_text(f"before\n{text.BEGIN}\nold\n{text.END}\nafter\n")
    text.write_into(page, ratios.table([a_run()], {"commit": "abc"}))
    written = page.read_text()
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")
    assert "one cap, 64 at once" in written
    assert "old" not in written


def test_a_profile_without_a_count_is_no_figure() -> None:
    """A worker that counts nothing would be the fastest of all."""
    assert instructions.total("events: Ir\nsummary: 0\n\ntotals: 268300\n") == 268_300
    for profile in ("", "events: Ir\ntotals: 0\n"):
        with pytest.raises(instructions.NotCounted, match="counted nothing"):
            instructions.total(profile)


def test_counting_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Valgrind comes with no package of the project's."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(instructions.NotCounted, match="needs valgrind"):
        list(instructions.lines())
