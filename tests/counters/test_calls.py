"""From a batch to a call and back, where what answers is no server of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from fanout_guard.counters.calls import Calls
from fanout_guard.counters.redis import Server
from fanout_guard.counters.scripts import Call, Packed
from fanout_guard.errors import CountersUnavailable

REQUESTS: dict[str, Packed] = {
    "release": ([b"key"], (b"id",), b""),
    "decide": ([b"key"], ((0, 0, (), 0, 0), b"\0"), b""),
}


class Stranger:
    """Something that speaks the protocol and answers ``reply`` to everything."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    def start(self, call: Call, done: Callable[[Any], None]) -> None:
        done(self.reply)

    async def call(self, call: Call) -> Any:
        return self.reply


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("reply", [None, 1, b"OK", b"\xc1", b"", [], [1], [1, 1, 1], [[], []], [[1], [1]], ["+", {}]])
async def test_an_answer_that_no_script_of_ours_gives_is_an_outage(name: str, reply: Any) -> None:
    """Its requests would else wait for ever, or a proxy's answer would count as theirs."""
    calls = Calls(cast(Server, Stranger(reply)), b"")
    ended: list[Any] = []
    calls.start(name, [REQUESTS[name]] * 2, ended.append)
    assert [type(each) for each in ended] == [CountersUnavailable]
    with pytest.raises(CountersUnavailable):
        await calls(name, [REQUESTS[name]] * 2)
