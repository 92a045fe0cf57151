"""A cluster: which master holds which slot, learnt from any of its nodes and corrected by their redirections."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from redis import exceptions
from redis.crc import key_slot

from fanout_guard.counters.outage import within
from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.redis_link import Address, Command, Link, is_unknown, script_command
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable

SCAN_STEP = 1000

_ATTEMPTS = 5
_PAUSE_S = 0.01  # between attempts at a slot whose keys are on the move
_NODE_S = 0.2  # so long one node is waited for when another may know the same
_KEYLESS = ("TIME", "PING", "INFO", "CONFIG", "ACL", "CLUSTER", "SCRIPT", "COMMAND", "DBSIZE", "FLUSHALL")


class Cluster:
    """A cluster as ``Server``: calls for one node share an exchange with it."""

    clustered = True

    def __init__(self, seeds: Sequence[Address], link: Callable[[Address], Link]) -> None:
        self._seeds = seeds
        self._link = link
        self._links: dict[Address, Link] = {}
        self._owners: dict[int, Address] = {}
        self._closed = False

    async def call(self, call: Call) -> Any:
        """Run one script call."""
        (answer,) = await self.calls([call])
        if isinstance(answer, CountersUnavailable):
            raise answer
        return answer

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run script calls, each of one slot; answers, or why there is none."""
        if not self._owners:
            await self.learn()
        slots = [key_slot(call.keys[0]) for call in calls]
        answers: list[Any] = [
            CountersUnavailable("cluster", alone=True)  # what stays so was on the move for too long
        ] * len(calls)
        waiting = {index: (self._owner(slot), False) for index, slot in enumerate(slots)}
        for attempt in range(_ATTEMPTS):
            replies = await self._ask(calls, waiting)
            asked, waiting = {index: address for index, (address, _) in waiting.items()}, {}
            for index, reply in replies.items():
                again = self._redirected(slots[index], reply, asked[index])
                if again is not None:
                    waiting[index] = again
                elif isinstance(reply, BaseException):
                    answers[index] = _failed(reply)
                else:
                    answers[index] = reply
            if not waiting:
                break
            if attempt:
                await asyncio.sleep(_PAUSE_S)
        return answers

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run one command on the node that holds its key, or on any."""
        if not self._owners:
            await self.learn()
        if str(arguments[0]).upper() in _KEYLESS or len(arguments) < 2:
            address = self._owner(0)
        else:
            address = self._owner(key_slot(_bytes(arguments[1])))
        asking = False
        for _ in range(_ATTEMPTS):
            commands: list[Command] = [("ASKING",), arguments] if asking else [arguments]
            reply = (await self._node(address).exchange(commands))[-1]
            again = self._redirected(key_slot(_bytes(arguments[1])), reply, address) if len(arguments) > 1 else None
            if again is None:
                if isinstance(reply, BaseException):
                    raise _failed(reply)
                return reply
            address, asking = again
        raise CountersUnavailable("cluster", alone=True)

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """The keys of a pattern on all masters, step by step; a key may come twice."""
        await self.learn()
        for address in sorted(set(self._owners.values())):
            async for key in scan(self._node(address), pattern):
                yield key

    async def probe(self) -> None:
        """Return if every slot has a master and all of them answer."""
        await self.learn()
        masters = sorted(set(self._owners.values()))
        looks = (self._node(address).exchange([("TIME",)]) for address in masters)
        # All are waited for: one that says nothing must not be left behind where another one has failed.
        for found in await asyncio.gather(*looks, return_exceptions=True):
            for reply in [found] if isinstance(found, BaseException) else found:
                if isinstance(reply, BaseException):
                    raise _failed(reply)

    async def drop(self) -> None:
        """Forget what was learnt: the masters may be others by now."""
        self._owners = {}
        for link in self._links.values():
            await link.drop()

    async def aclose(self) -> None:
        """Close all connections for good."""
        self._closed = True
        for link in tuple(self._links.values()):
            await link.aclose()

    async def learn(self) -> None:
        """Ask one node after the other for the masters of all slots."""
        nodes = list({*self._seeds, *self._owners.values(), *self._links})
        random.shuffle(nodes)
        reason = "connection"
        for node in nodes:
            try:
                (reply,) = await within(_NODE_S, self._node(node).exchange([("CLUSTER", "SLOTS")]))
            except TimeoutError:
                reason = "timeout"
            except CountersUnavailable as error:
                reason = error.reason
            else:
                owners = {} if isinstance(reply, BaseException) else _owners(reply, node)
                if owners:
                    self._owners = owners
                    await self._forget_gone(reply, node)
                    return
                reason = reason_of(reply) if isinstance(reply, BaseException) else "cluster"
        raise CountersUnavailable(reason)

    async def _forget_gone(self, slots: Any, asked: Address) -> None:
        """Close what led to nodes that have left, unless somebody still waits for an answer of theirs."""
        known = {*self._seeds, *(_address(node, asked) for _, _, *nodes in slots for node in nodes)}
        for address in [address for address, link in self._links.items() if address not in known and not link.busy]:
            await self._links.pop(address).aclose()

    async def _ask(self, calls: Sequence[Call], waiting: dict[int, tuple[Address, bool]]) -> dict[int, Any]:
        together: dict[tuple[Address, bool], list[int]] = {}
        for index, target in waiting.items():
            together.setdefault(target, []).append(index)
        found = await asyncio.gather(
            *(
                _evaluate(self._node(address), [calls[index] for index in indexes], asking=asking)
                for (address, asking), indexes in together.items()
            ),
            return_exceptions=True,
        )
        replies: dict[int, Any] = {}
        for indexes, answers in zip(together.values(), found, strict=True):
            for position, index in enumerate(indexes):
                replies[index] = answers if isinstance(answers, BaseException) else answers[position]
        return replies

    def _redirected(self, slot: int, reply: object, asked: Address) -> tuple[Address, bool] | None:
        """Where to ask again, and whether with ASKING."""
        if isinstance(reply, exceptions.AskError):  # MovedError is one of them
            address = (reply.host or asked[0], reply.port)
            moved = isinstance(reply, exceptions.MovedError)
            if moved:
                self._owners[slot] = address
            return address, not moved
        if isinstance(reply, exceptions.TryAgainError):
            return self._owner(slot), False
        return None

    def _owner(self, slot: int) -> Address:
        owner = self._owners.get(slot)
        if owner is None:
            raise CountersUnavailable("cluster")
        return owner

    def _node(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            if self._closed:
                raise CountersUnavailable("connection", sent=False)
            link = self._links[address] = self._link(address)
        return link


async def _evaluate(link: Link, calls: Sequence[Call], *, asking: bool) -> list[Any]:
    """Run script calls in one exchange; two where the node does not know a script. Answers, or the errors met."""
    replies = await _exchange(link, "EVALSHA", calls, asking)
    unknown = [index for index, reply in enumerate(replies) if is_unknown(reply)]
    if unknown:
        # Sent whole, the node knows it again; once only, so that one that never learns is an outage.
        again = await _exchange(link, "EVAL", [calls[index] for index in unknown], asking)
        for index, reply in zip(unknown, again, strict=True):
            replies[index] = reply
    return replies


async def _exchange(link: Link, command: str, calls: Sequence[Call], asking: bool) -> list[Any]:
    commands: list[Command] = []
    for call in calls:
        if asking:
            commands.append(("ASKING",))
        commands.append(script_command(command, call))
    replies = await link.exchange(commands)
    return replies[1::2] if asking else replies


async def scan(link: Link, pattern: bytes) -> AsyncIterator[bytes]:
    """The keys of a pattern on one server, step by step; a key may come twice."""
    cursor: Any = b"0"
    while True:
        (reply,) = await link.exchange([("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_STEP)])
        if isinstance(reply, BaseException):
            raise _failed(reply)
        cursor, found = reply
        for key in found:
            yield key
        if int(cursor) == 0:
            return


def _failed(error: BaseException) -> CountersUnavailable:
    return CountersUnavailable(error.reason if isinstance(error, CountersUnavailable) else reason_of(error))


def _owners(reply: Any, asked: Address) -> dict[int, Address]:
    owners: dict[int, Address] = {}
    for first, last, master, *_ in reply:
        owners.update(dict.fromkeys(range(first, last + 1), _address(master, asked)))
    return owners


def _address(node: Any, asked: Address) -> Address:
    host, port, *_ = node
    name = host.decode() if host else ""
    return (name if name and name != "?" else asked[0], int(port))


def _bytes(argument: str | bytes | int) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()
