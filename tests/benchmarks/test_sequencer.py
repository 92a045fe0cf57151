"""In which order phases are sent and what is written of them; Locust's runner and the time are replaced."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.json import encode

from benchmarks import sequencer
from benchmarks.plan import Outcome, Phase, Plan

LEAD = sequencer.LEAD_SECONDS
Takes = Callable[[int, int], tuple[float, str]]


class Locust:
    """A runner, and the time that passes while its sequencer sleeps.

    ``takes`` says for the index of a circulation in its phase in how many seconds it ends, and how.
    """

    def __init__(self, plan: Plan, takes: Takes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.plan, self.takes = plan, takes
        self.user_count = self.worker_count = 1
        self.stats = SimpleNamespace(num_requests=0)
        self.time = 1000.0
        self.kinds: list[str] = []
        self.sent: list[tuple[float, list[tuple[int, int]]]] = []
        self.under_way: list[Outcome] = []
        self.killed = 0
        samples = io.BytesIO()
        monkeypatch.setattr(sequencer, "gevent", SimpleNamespace(spawn=lambda run: self, sleep=self.sleep))
        self.sequencer = sequencer.Sequencer(SimpleNamespace(runner=self), plan, samples, lambda: self.time)  # type: ignore[arg-type]
        self.samples = samples

    def run(self) -> list[dict[str, Any]]:
        """What is written of the whole plan."""
        self.sequencer.run()
        return [json.loads(line) for line in self.samples.getvalue().splitlines()]

    def send_message(self, kind: str, data: Any) -> None:
        self.kinds.append(kind)
        if kind == "circulations":
            self.sent.append((self.time, [(phase, index) for phase, index, _ in data["arrivals"]]))
            self.processes = data["processes"]
            for phase, index, due in data["arrivals"]:
                seconds, result = self.takes(phase, index)
                outcome = Outcome(phase=phase, index=index, scheduled=due, result=result, latency_ms=seconds * 1000)
                self.under_way.append(outcome)

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for outcome in tuple(self.under_way):
            if outcome.scheduled + outcome.latency_ms / 1000 <= self.time:
                self.under_way.remove(outcome)
                self.end(outcome)

    def end(self, outcome: Outcome, *, run: str = "run") -> None:
        ended = {"run": run, "outcome": encode(outcome).decode()}
        self.sequencer.record(SimpleNamespace(data=ended))

    def kill(self) -> None:
        self.killed += 1


def phase(documents: int = 2, **fields: Any) -> Phase:
    return Phase(**{"sweep": 1, "sites": 1, "documents": documents, "rate": 1.0, "discarded": 0, **fields})


def test_a_level_begins_when_all_before_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still under way would be measured as the next level's latency, and so would a cold target."""
    plan = Plan(phases=(phase(discarded=2), phase(discarded=1)))
    locust = Locust(plan, lambda *_: (3.0, "ok"), monkeypatch)
    written = locust.run()
    sent = [arrivals for _, arrivals in locust.sent]
    assert sent == [[(0, -2)], [(0, -1)], [(0, 0), (0, 1)], [(1, -1)], [(1, 0), (1, 1)]]
    assert [round(time - 1000) for time, _ in locust.sent] == [0, 3, 6, 11, 14]
    assert locust.kinds == ["plan"] + ["circulations"] * 5
    ends = [record for record in written if record["type"] == "phase"]
    assert [end["begin"] for end in ends] == pytest.approx([locust.sent[at][0] + LEAD for at in (2, 4)])
    assert [end["end"] - end["begin"] for end in ends] == pytest.approx([4.0, 4.0])
    assert [end["drain_seconds"] for end in ends] == pytest.approx([2.0, 2.0])
    assert locust.sequencer.done
    assert locust.sequencer.complete


def test_phases_beside_each_other_are_sent_as_one_in_the_order_of_their_arrivals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An isolation run's bystanders have to meet the flood: sent after it, they would show no harm at all."""
    flood, bystander, after = phase(3, rate=2.0), phase(3, beside=True), phase(1)
    locust = Locust(Plan(phases=(flood, bystander, after)), lambda *_: (0.1, "ok"), monkeypatch)
    written = locust.run()
    assert [arrivals for _, arrivals in locust.sent] == [[(0, 0), (1, 0), (0, 1), (0, 2), (1, 1), (1, 2)], [(2, 0)]]
    ends = [record for record in written if record["type"] == "phase"]
    assert [(end["phase"], end["drain_seconds"]) for end in ends] == [(0, 0.0), (1, 0.0), (2, 0.0)]
    assert ends[0]["begin"] == ends[1]["begin"]


def test_what_never_ends_is_written_once_as_unfinished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out, the slowest would flatter the level; its late end, or one of an earlier test, would count it twice."""
    locust = Locust(Plan(phases=(phase(3),), drain_seconds=5.0), lambda *_: (60.0, "ok"), monkeypatch)
    going = {"run": "run", "phase": 0, "index": 1, "lag_ms": 7.0}
    locust.sequencer.sent(SimpleNamespace(data=going))
    locust.sequencer.sent(SimpleNamespace(data={**going, "run": "before", "lag_ms": 9.0}))
    locust.end(Outcome(phase=0, index=0, scheduled=0.0, result="ok"), run="before")
    written = locust.run()
    assert [(record.get("result"), record.get("lag_ms")) for record in written] == [
        ("unfinished", 0.0),
        ("unfinished", 7.0),
        ("unfinished", 0.0),
        (None, None),
    ]
    assert [record["latency_ms"] for record in written[:3]] == pytest.approx([7000, 6000, 5000], abs=40)
    assert locust.kinds == ["plan", "circulations", "drop-circulations"]
    locust.sleep(60)
    assert locust.samples.getvalue().count(b"\n") == 4
    assert not locust.sequencer.useful()


@pytest.mark.parametrize(("failed_of_ten", "ended"), [((1, 3, 5, 7, 9), 40), ((1, 3, 5, 7, 8, 9), 10)])
def test_a_phase_is_given_up_when_over_half_of_at_least_ten_have_failed(
    failed_of_ten: tuple[int, ...], ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to half is a level that can be judged; more is none, and what it would go on to send tells no more."""

    def takes(_: int, index: int) -> tuple[float, str]:
        return 0.0, "failed" if index % 10 in failed_of_ten else "ok"

    locust = Locust(Plan(phases=(phase(40), phase(1))), takes, monkeypatch)
    written = [record for record in locust.run() if record["type"] == "document" and record["phase"] == 0]
    unfinished = [record["latency_ms"] for record in written if record["result"] == "unfinished"]
    assert (len(written), len(unfinished)) == (40, 40 - ended)
    assert unfinished[-1:] in ([], [0.0]), "not due when it was given up"
    assert locust.sent[1][1] == [(1, 0)], "the next one has its chance"


def test_it_begins_when_each_process_has_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without one sends nothing of its share; one that never gets it must not stop the test for ever."""
    locust = Locust(Plan(phases=(phase(),)), lambda *_: (0.0, "ok"), monkeypatch)
    for users, processes, begins in ((1, 1, 1000), (0, 1, 1030), (3, 3, 1000), (2, 3, 1030)):
        locust = Locust(Plan(phases=(phase(),)), lambda *_: (0.0, "ok"), monkeypatch)
        locust.user_count, locust.worker_count = users, processes
        locust.run()
        assert (round(locust.sent[0][0]), locust.processes) == (begins, processes)


def test_a_test_that_a_person_stops_sends_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers would send the rest into the next test of the web UI; a test that has ended has no rest."""
    locust = Locust(Plan(phases=(phase(),)), lambda *_: (0.0, "ok"), monkeypatch)
    for _ in range(2):
        locust.sequencer.stop()
    assert (locust.killed, locust.kinds, locust.sequencer.complete) == (1, ["drop-circulations"], False)
    locust.run()
    locust.sequencer.stop()
    assert locust.kinds.count("drop-circulations") == 1


def test_locusts_figures_are_whole_when_they_have_all_that_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables that Locust prints at its end would else lack the last documents; none waits for unfinished ones."""
    locust = Locust(Plan(phases=(phase(3),)), lambda _, index: (0.0 if index else 90.0, "refused"), monkeypatch)
    locust.run()
    told = []
    for locust.stats.num_requests in (1, 2, 3):
        told.append(locust.sequencer.told)
    assert told == [False, True, True]
    assert locust.sequencer.useful()
