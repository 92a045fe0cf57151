"""Runs the phases of a plan one after the other on Locust's runner, each from empty to drained.

Loaded by the locustfile only: it needs gevent, which Locust puts under the whole process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import gevent
from msgspec.json import Decoder, encode

from benchmarks.plan import Outcome, Phase, PhaseEnd, Plan

if TYPE_CHECKING:
    from locust.env import Environment  # puts gevent under the whole process, which tests of this file are not for

OUTCOMES = Decoder(Outcome)
START_SECONDS = 30.0  # for all processes to have their user
LEAD_SECONDS = 0.2  # between telling the processes of a phase and its first circulation
GIVE_UP_AFTER = 10  # circulations, if over half of them failed


class Sequencer:
    """Runs the phases one after the other, each from empty to drained, and writes down what came of them."""

    def __init__(
        self, environment: Environment, plan: Plan, samples: IO[bytes] | None, now: Callable[[], float]
    ) -> None:
        self.plan = plan
        self.done = False
        self.complete = False
        self._runner: Any = environment.runner
        self._samples = samples
        self._now = now
        self._lags_ms: dict[tuple[int, int], float] = {}
        self._ended: dict[tuple[int, int], Outcome] = {}
        # Of the circulations sent last: kept as they end, since to look at all of them would delay those to be sent.
        self._waiting: set[tuple[int, int]] = set()
        self._failed = 0
        self._greenlet = gevent.spawn(self.run)

    def sent(self, msg: Any, **_: Any) -> None:
        """A circulation goes out, here or in a worker."""
        if msg.data["run"] == self.plan.run:
            self._lags_ms[msg.data["phase"], msg.data["index"]] = msg.data["lag_ms"]

    def record(self, msg: Any, **_: Any) -> None:
        """A circulation has ended, here or in a worker."""
        outcome = OUTCOMES.decode(msg.data["outcome"])
        if msg.data["run"] != self.plan.run or (outcome.phase, outcome.index) in self._ended:
            return  # of a test that was stopped, or given up before, and counted as such
        self._ended[outcome.phase, outcome.index] = outcome
        self._waiting.discard((outcome.phase, outcome.index))
        self._failed += outcome.result == "failed"
        self._write(outcome)

    def run(self) -> None:
        """Run all phases, then let the test stop."""
        try:
            self._wait_for_users()
            self._runner.send_message("plan", encode(self.plan).decode())
            phases = list(enumerate(self.plan.phases))
            while phases:
                group = [phases.pop(0)]
                while phases and phases[0][1].beside:
                    group.append(phases.pop(0))
                self._run_together(group)
            self.complete = True
        finally:
            self.done = True

    def stop(self) -> None:
        """End where a person ends the test; what was not sent yet must not go out in the next one."""
        if not self.done:
            self._greenlet.kill()
            self.done = True
            self._runner.send_message("drop-circulations", {})

    @property
    def told(self) -> bool:
        """Whether Locust's own figures have every circulation that ended by itself."""
        answered = sum(outcome.result != "unfinished" for outcome in self._ended.values())
        return int(self._runner.stats.num_requests) >= answered

    def useful(self) -> bool:
        """Whether anything was delivered, or refused as it had to be."""
        return any(outcome.result in ("ok", "refused") for outcome in self._ended.values())

    def _run_together(self, group: list[tuple[int, Phase]]) -> None:
        for number, phase in group:
            for index in range(-phase.discarded, 0):
                self._send([(number, index, self._now() + LEAD_SECONDS)], limit=self.plan.drain_seconds)
        begin = self._now() + LEAD_SECONDS
        arrivals = [(number, index, due) for number, phase in group for index, due in enumerate(phase.schedule(begin))]
        arrivals.sort(key=lambda arrival: arrival[2])
        last = arrivals[-1][2] if arrivals else begin
        self._send(arrivals, limit=last - self._now() + self.plan.drain_seconds)
        end = max([begin, *(self._end_of(number, index) for number, index, _ in arrivals)])
        slot = max(begin + phase.seconds for _, phase in group)
        for number, _ in group:
            self._write(PhaseEnd(phase=number, begin=begin, end=end, drain_seconds=max(end - slot, 0.0)))

    def _end_of(self, number: int, index: int) -> float:
        outcome = self._ended[number, index]
        return outcome.scheduled + outcome.latency_ms / 1000

    def _send(self, arrivals: list[tuple[int, int, float]], *, limit: float) -> None:
        self._waiting, self._failed = {(number, index) for number, index, _ in arrivals}, 0
        processes = max(self._runner.worker_count, 1)
        self._runner.send_message("circulations", {"arrivals": arrivals, "processes": processes})
        deadline = self._now() + limit
        while self._waiting and self._now() < deadline and not self._hopeless(len(arrivals)):
            gevent.sleep(0.02)
        if self._waiting:
            self._runner.send_message("drop-circulations", {})
        for number, index, due in arrivals:
            if (number, index) not in self._ended:
                lost = Outcome(
                    phase=number,
                    index=index,
                    scheduled=due,
                    result="unfinished",
                    latency_ms=max(self._now() - due, 0) * 1000,
                    lag_ms=self._lags_ms.get((number, index), 0.0),
                )
                self._ended[number, index] = lost
                self._write(lost)

    def _hopeless(self, sent: int) -> bool:
        ended = sent - len(self._waiting)
        return ended >= GIVE_UP_AFTER and self._failed * 2 > ended

    def _wait_for_users(self) -> None:
        deadline = self._now() + START_SECONDS
        while self._runner.user_count < max(self._runner.worker_count, 1) and self._now() < deadline:
            gevent.sleep(0.05)

    def _write(self, record: Outcome | PhaseEnd) -> None:
        if self._samples:
            self._samples.write(encode(record) + b"\n")
            self._samples.flush()
