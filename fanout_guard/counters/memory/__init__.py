"""Counters in this process, with the semantics of the shared ones."""

from fanout_guard.counters.memory.counters import MemoryCounters

__all__ = ["MemoryCounters"]
