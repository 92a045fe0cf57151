"""Faults on real processes, and an oracle that counts what they let through."""
