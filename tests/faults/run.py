"""One fault: three crowds, one for each outage rule, before, during and after it; and what has to hold."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

from tests.faults.crowd import BUDGET_S, ENTRIES, INFLIGHT, LEASE_TTL_S, MODES, RATE, Crowd, Lag
from tests.faults.faults import Fault

CALM_S = 0.25
BACK_WITHIN_S = 2.0
SLACK_S = 0.05


@dataclass(frozen=True, slots=True)
class Row:
    """What one fault did under one outage rule; entries, seconds."""

    fault: str
    mode: str
    asked: int
    counted: int
    uncounted: int
    refused: int
    lost: int
    """Room under the rate cap that nobody used and nobody gave back."""
    back_s: float
    """From the servers' return until the last worker counted with them again."""
    longest_s: float
    most_held: int
    left_in_flight: int
    errors: tuple[str, ...]
    lag_s: float
    counted_at_most: int
    uncounted_at_most: int | None

    def broken(self) -> list[str]:
        """The promises that were not kept."""
        longest = BUDGET_S + SLACK_S + 2 * self.lag_s
        held_at_most = INFLIGHT * (self.counted_at_most // RATE)
        found = [f"an error: {error}" for error in self.errors]
        if self.counted > self.counted_at_most:
            found.append(f"{self.counted} entries counted; at most {self.counted_at_most}")
        if self.uncounted_at_most is not None and self.uncounted > self.uncounted_at_most:
            found.append(f"{self.uncounted} entries let through uncounted; at most {self.uncounted_at_most}")
        if self.most_held > held_at_most:
            found.append(f"{self.most_held} entries in flight; at most {held_at_most}")
        if self.lost > 0:
            found.append(f"{self.lost} entries charged that nobody circulated")
        if self.left_in_flight:
            found.append(f"{self.left_in_flight} entries in flight that nobody gives back")
        if self.back_s > BACK_WITHIN_S + 2 * self.lag_s:
            found.append(f"back after {self.back_s:.2f} s; at most {BACK_WITHIN_S} s")
        if self.longest_s > longest:
            found.append(f"a decision took {self.longest_s:.3f} s; at most {longest:.3f} s")
        return found


async def run(fault: Fault, seed: int) -> list[Row]:
    """Let it happen, at a moment that the seed chooses."""
    chance = random.Random(seed)
    async with fault.stage() as (url, happen):
        crowds = [Crowd(mode, url, seed) for mode in MODES]
        for crowd in crowds:
            await crowd.warm_up()
            crowd.start()
        lag = Lag()
        await asyncio.sleep(CALM_S * chance.uniform(0.5, 1.5))
        lost = await happen() or int(fault.forgets)
        back_at = time.monotonic()
        await asyncio.sleep(CALM_S)
        await asyncio.gather(*(crowd.until_back() for crowd in crowds))
        await asyncio.sleep(CALM_S)
        await asyncio.gather(*(crowd.stop() for crowd in crowds))
        await lag.stop()
        await asyncio.gather(*(crowd.fill() for crowd in crowds))
        rows = [await _row(fault, crowd, back_at, lag.most_s, lost) for crowd in crowds]
        for crowd in crowds:
            await crowd.close()
        return rows


async def _row(fault: Fault, crowd: Crowd, back_at: float, lag_s: float, lost: int) -> Row:
    count = crowd.count
    at_most = RATE * (1 + lost)
    return Row(
        fault=fault.name,
        mode=crowd.mode,
        asked=count.asked * ENTRIES,
        counted=count.counted,
        uncounted=count.uncounted,
        refused=count.refused * ENTRIES,
        lost=RATE - count.counted,
        back_s=crowd.back(back_at),
        longest_s=count.longest_s,
        most_held=count.most_held,
        left_in_flight=await crowd.left_in_flight(LEASE_TTL_S),
        errors=tuple(count.errors),
        lag_s=lag_s,
        counted_at_most=at_most,
        uncounted_at_most={"local": RATE, "open": None, "closed": 0}[crowd.mode],
    )
