"""How much of its caps a tenant has used, as people read it."""

from __future__ import annotations

from msgspec import Struct

from fanout_guard.core.model import CIRCULATION, Policy, Reading, Tally


class Usage(Struct, frozen=True):
    """Usage of one policy by a tenant; ``reset_after`` is the seconds until room comes back, 0 if none is taken."""

    limit: int
    used: int
    remaining: int
    reset_after: int

    @classmethod
    def of(cls, reading: Reading) -> Usage:
        """What a counter's reading says."""
        remaining = max(reading.limit - reading.used, 0)
        return cls(reading.limit, reading.used, remaining, -(-reading.reset_ms // 1000))


def usages(policy: Policy, tally: Tally) -> dict[str, Usage]:
    """The usage of every cap, by policy; of the circulation cap nothing is ever used up."""
    found = {reading.policy: Usage.of(reading) for reading in tally.readings}
    if policy.circulation is None:
        return found
    return {CIRCULATION: Usage(policy.circulation, 0, policy.circulation, 0), **found}
