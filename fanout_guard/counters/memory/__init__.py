"""Counters in this process, with the semantics of the shared ones.

All times in here (``now``, ``at``, ``window``, ``expires``, …) are whole milliseconds of one clock, which comes from
outside.
"""

from fanout_guard.counters.memory.counters import MemoryCounters

__all__ = ["MemoryCounters"]
