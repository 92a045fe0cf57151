"""A cluster: which master holds which slot, learnt from any of its nodes and corrected by their redirections.

Each slot's calls stand alone: what has to be atomic across slots is ``reservation``'s business.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence, Set
from typing import Any, NamedTuple

from redis import exceptions
from redis.crc import key_slot

from fanout_guard.counters.budget import within
from fanout_guard.counters.outage import PROBE_EVERY_S
from fanout_guard.counters.reasons import reading_replies
from fanout_guard.counters.redis_errors import reason_of
from fanout_guard.counters.redis_evaluation import is_unknown, script_command
from fanout_guard.counters.redis_link import Address, Command, Link
from fanout_guard.counters.scripts import Call
from fanout_guard.errors import CountersUnavailable

_ATTEMPTS = 5
_PAUSE_S = 0.01  # between attempts at a slot whose keys are being moved
_NODE_S = 0.2  # how long to wait for one node where another one may give the same answer


class _Target(NamedTuple):
    """Where to send a call; ``asking`` says that the slot is being moved there, which takes an ASKING first."""

    address: Address
    asking: bool = False


class Cluster:
    """A cluster as a ``Server``; calls for the same node share one exchange with it."""

    clustered = True

    def __init__(self, seeds: Sequence[Address], make_link: Callable[[Address], Link]) -> None:
        self._seeds = seeds
        self._make_link = make_link
        self._links: dict[Address, Link] = {}
        self._owners: dict[int, Address] = {}
        # Slots whose keys are split over two nodes, and until when, in the loop's time, nobody waits for that to end.
        self._moving: dict[int, float] = {}
        self._closed = False

    async def call(self, call: Call) -> Any:
        """Run one script call."""
        (answer,) = await self.calls([call])
        if isinstance(answer, CountersUnavailable):
            raise answer
        return answer

    async def calls(self, calls: Sequence[Call]) -> list[Any]:
        """Run script calls, each of one slot; an answer or an error for each."""
        if not self._owners:
            await self.learn()
        slots = [slot_of(call.keys[0]) for call in calls]
        # A call that is redirected at every attempt keeps this error: its slot was being moved for too long.
        answers: list[Any] = [CountersUnavailable("cluster", alone=True)] * len(calls)
        targets = {index: _Target(self._owner(slot)) for index, slot in enumerate(slots)}
        for attempt in range(_ATTEMPTS):
            redirected: dict[int, _Target] = {}
            for index, reply in (await self._ask(calls, targets)).items():
                again = self._redirected(slots[index], reply, targets[index].address)
                if again is None:
                    answers[index] = _failed(reply) if isinstance(reply, BaseException) else reply
                elif not (isinstance(reply, exceptions.TryAgainError) and self._is_moving(slots[index])):
                    redirected[index] = again
            if not redirected:
                break
            targets = redirected
            if attempt:
                await asyncio.sleep(_PAUSE_S)
        else:
            # Waited for once, not by every later call: calls for other slots share the exchange and would wait, too.
            until_s = asyncio.get_running_loop().time() + PROBE_EVERY_S
            self._moving.update((slots[index], until_s) for index in targets)
        return answers

    async def command(self, *arguments: str | bytes | int) -> Any:
        """Run one command on the node that holds its key, or on any."""
        if not self._owners:
            await self.learn()
        # CLUSTER has no key; what other commands without one have in its place leads to some node as well.
        slot = 0 if len(arguments) < 2 or arguments[0] == "CLUSTER" else slot_of(_bytes(arguments[1]))
        target = _Target(self._owner(slot))
        for _ in range(_ATTEMPTS):
            commands: list[Command] = [("ASKING",), arguments] if target.asking else [arguments]
            reply = (await self._link_to(target.address).exchange(commands))[-1]
            again = self._redirected(slot, reply, target.address)
            if again is None:
                if isinstance(reply, BaseException):
                    raise _failed(reply)
                return reply
            target = again
        raise CountersUnavailable("cluster", alone=True)

    async def scan(self, pattern: bytes) -> AsyncIterator[bytes]:
        """The keys of a pattern on all masters, step by step; a key may come twice."""
        await self.learn()
        for address in sorted(set(self._owners.values())):
            async for key in self._link_to(address).scan(pattern):
                yield key

    async def probe(self) -> None:
        """Return if every slot has a master and all of them answer."""
        await self.learn()
        masters = sorted(set(self._owners.values()))
        looks = (self._link_to(address).command(("TIME",)) for address in masters)
        # All are waited for, even where one has failed: no exchange must be left behind.
        for found in await asyncio.gather(*looks, return_exceptions=True):
            if isinstance(found, BaseException):
                raise _failed(found)

    def drop(self) -> None:
        """Forget who owns the slots, and close idle connections: there may be other masters by now."""
        self._owners = {}
        for link in self._links.values():
            link.drop()

    def close(self) -> None:
        """Close all connections for good."""
        self._closed = True
        for link in tuple(self._links.values()):
            link.close()

    async def learn(self) -> None:
        """Ask one node after the other who owns the slots, until one knows."""
        nodes = list({*self._seeds, *self._owners.values(), *self._links})
        random.shuffle(nodes)
        reason = "connection"
        for node in nodes:
            try:
                reply = await within(_NODE_S, self._link_to(node).command(("CLUSTER", "SLOTS")))
                slots = _read_slots(reply, node)
            except TimeoutError:
                reason = "timeout"
            except CountersUnavailable as error:
                reason = error.reason
            else:
                if slots:
                    self._owners = {slot: holders[0] for served, holders in slots for slot in served}
                    self._forget_gone({*self._seeds, *(holder for _, holders in slots for holder in holders)})
                    return
                reason = "cluster"
        raise CountersUnavailable(reason)

    def _forget_gone(self, known: Set[Address]) -> None:
        """Close the links to nodes that have left the cluster, unless an exchange is under way there."""
        for address in [address for address, link in self._links.items() if address not in known and not link.busy]:
            self._links.pop(address).close()

    async def _ask(self, calls: Sequence[Call], targets: dict[int, _Target]) -> dict[int, Any]:
        """Send each call to its target, with one exchange for each target; the reply or the error of each."""
        together: dict[_Target, list[int]] = {}
        for index, target in targets.items():
            together.setdefault(target, []).append(index)
        found = await asyncio.gather(
            *(
                _evaluate(self._link_to(target.address), [calls[index] for index in indexes], asking=target.asking)
                for target, indexes in together.items()
            ),
            return_exceptions=True,
        )
        replies: dict[int, Any] = {}
        for indexes, answers in zip(together.values(), found, strict=True):
            for position, index in enumerate(indexes):
                replies[index] = answers if isinstance(answers, BaseException) else answers[position]
        return replies

    def _redirected(self, slot: int, reply: object, asked: Address) -> _Target | None:
        """Where to ask again; None if the reply is no redirection."""
        if isinstance(reply, exceptions.AskError):
            address = (reply.host or asked[0], reply.port)
            moved = isinstance(reply, exceptions.MovedError)  # a subclass of AskError
            if moved:
                self._owners[slot] = address
            return _Target(address, asking=not moved)
        if isinstance(reply, exceptions.TryAgainError):
            return _Target(self._owner(slot))
        return None

    def _is_moving(self, slot: int) -> bool:
        """Whether the keys of a slot were found split over two nodes just now."""
        return asyncio.get_running_loop().time() < self._moving.get(slot, 0.0)

    def _owner(self, slot: int) -> Address:
        owner = self._owners.get(slot)
        if owner is None:
            raise CountersUnavailable("cluster")
        return owner

    def _link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            if self._closed:
                raise CountersUnavailable("connection", sent=False)
            link = self._links[address] = self._make_link(address)
        return link


def slot_of(key: bytes) -> int:
    """The hash slot of ``key``."""
    return key_slot(key)


async def _evaluate(link: Link, calls: Sequence[Call], *, asking: bool) -> list[Any]:
    """Run script calls in one exchange, or two if the node does not know a script; an answer or an error for each."""
    replies = await _exchange(link, "EVALSHA", calls, asking)
    unknown = [index for index, reply in enumerate(replies) if is_unknown(reply)]
    if unknown:
        # EVAL makes the node know the script. Once only: a node that still does not know it is an outage.
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


def _failed(error: BaseException) -> CountersUnavailable:
    return CountersUnavailable(error.reason if isinstance(error, CountersUnavailable) else reason_of(error))


def _read_slots(reply: Any, asked: Address) -> list[tuple[range, list[Address]]]:
    """Ranges of slots, each with the nodes that hold it, the master first."""
    with reading_replies():
        return [
            (range(first, last + 1), [_address(node, asked) for node in (master, *replicas)])
            for first, last, master, *replicas in reply
        ]


def _address(node: Any, asked: Address) -> Address:
    host, port, *_ = node
    name = host.decode() if host else ""
    return (name if name and name != "?" else asked[0], int(port))


def _bytes(argument: str | bytes | int) -> bytes:
    return argument if isinstance(argument, bytes) else str(argument).encode()
