"""One script call to one server: by the script's digest, and with its text where the server does not know it yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis import exceptions

from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.redis_link import Command, Exchange, Link, pack
from fanout_guard.counters.redis_wire import Replies
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable


class Evaluation(Exchange):
    """One script call under way; sent again with the whole script if the server does not know it."""

    __slots__ = ("_call",)

    def __init__(self, link: Link, call: Call, done: Callable[[Any], None]) -> None:
        self._call: Call | None = call
        super().__init__(link, pack(script_command("EVALSHA", call)), 1, done)

    def _finish(self, outcome: Replies | Exception) -> None:
        reply = outcome if isinstance(outcome, Exception) else outcome[0]
        if isinstance(reply, exceptions.RedisError):
            call, self._call = self._call, None
            if call is not None and is_unknown(reply):
                # Once only: a server that still does not know it is an outage.
                self._packed = pack(script_command("EVAL", call))
                self._send()
                return
            reply = CountersUnavailable(reason_of(reply))
        super()._finish(reply)


def script_command(command: str, call: Call) -> Command:
    """``EVALSHA`` with the script's digest, or ``EVAL`` with the whole script, for a call."""
    script, keys, arguments = call
    return (command, script.sha if command == "EVALSHA" else script.text, len(keys), *keys, *arguments)


def is_unknown(reply: object) -> bool:
    """Whether the server does not know the script of an EVALSHA."""
    return isinstance(reply, exceptions.ResponseError) and reason_of(reply) == "noscript"
