"""Whether a server is one for the guard's counters, by what it says of itself when it is greeted."""

from __future__ import annotations

from typing import Any

from redis import exceptions

from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.errors import CountersUnavailable

HELLO = ("HELLO", 2)

OLDEST = (6, 2)
"""The oldest supported version of Redis; every Valkey is newer."""


def check_server(hello: Any, *, master: bool) -> None:
    """Refuse a server by its reply to HELLO: too old for the scripts, or a replica where it has to be the master."""
    if isinstance(hello, exceptions.RedisError):
        reason = reason_of(hello)
        if reason == "noperm":
            return  # this user may not ask, and is trusted to have the right server
        raise CountersUnavailable("version" if reason == "script" else reason)
    try:
        about = dict(zip(hello[::2], hello[1::2], strict=False))
        version = tuple(map(int, about[b"version"].split(b".")[:2]))
    except (KeyError, ValueError, AttributeError, TypeError):
        return  # the server does not tell its version
    if version < OLDEST:
        raise CountersUnavailable("version")
    if master and about.get(b"role", b"master") != b"master":
        raise CountersUnavailable("readonly")
