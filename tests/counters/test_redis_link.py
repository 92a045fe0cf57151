"""One exchange with a server: repeated once where the connection had died, and never mixed up with another."""

from __future__ import annotations

import asyncio

import pytest
from msgspec import msgpack

from fanout_guard.core.keys import new_id
from fanout_guard.core.model import Charge, Lease, Part, Policy, Rate, Tally
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.counters.bench import rates
from tests.counters.watching import Edges
from tests.faults.network import HANGS, HELLO, Proxy, accepting, answering, hanging, saying
from tests.faults.servers import Node
from tests.waiting import at_once, stopwatch, until

HOUR = rates((1000, 3_600_000))
BUDGET_MS = 150
SLACK_S = 0.25
"""What a busy machine may add."""


def charge(tenant: str = "acme", cost: int = 10, policy: Policy = HOUR) -> Charge:
    """One circulation."""
    return Charge(lease=Lease(new_id()), tenant=tenant, cost=cost, sites=b"", policy=policy, lease_ms=60_000)


async def used(counters: RedisCounters, tenant: str = "acme") -> int:
    """What is counted for a tenant."""
    look = Charge(lease=Lease(new_id()), tenant=tenant, cost=0, sites=b"", policy=HOUR, lease_ms=60_000, look=True)
    return (await counters.decide(look)).readings[0].used


async def refused(counters: RedisCounters) -> str:
    """Why a decision was not made."""
    with pytest.raises(CountersUnavailable) as caught:
        await counters.decide(charge())
    return caught.value.reason


async def test_a_connection_that_died_while_idle_is_not_an_outage(server: Node) -> None:
    """A server that was restarted, or closes idle connections, costs one more connection and no decision."""
    counters = RedisCounters(server.url, timeout_ms=2000)
    await counters.decide(charge())
    for _ in range(3):
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        assert (await counters.decide(charge())).charged
    assert await used(counters) == 40
    server.kill()
    server.start()
    assert (await counters.decide(charge())).charged
    assert await used(counters) == 10
    await counters.aclose()


async def test_what_is_sent_twice_is_charged_once(server: Node, proxy: Proxy) -> None:
    """The server has decided, the connection dies before the answer, and the guard asks again."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    await counters.decide(charge())
    proxy.lose_replies = True
    deciding = asyncio.create_task(counters.decide(charge()))
    await asyncio.to_thread(until, lambda: server.ask("DBSIZE") == 3)  # two records and the tenant's rates
    proxy.lose_replies = False
    proxy.cut()
    assert (await deciding).charged
    assert await used(counters) == 20
    await counters.aclose()


async def test_a_partial_refund_sent_twice_gives_back_once(server: Node, proxy: Proxy) -> None:
    """Else a lost answer would let a tenant have more than its cap."""
    counters = RedisCounters(proxy.url, timeout_ms=2000)
    one = charge()
    await counters.decide(one)
    await counters.refund("acme", Lease(new_id()), Part(entries=1))  # so that the server knows the script
    proxy.lose_replies = True
    refunding = asyncio.create_task(counters.refund("acme", one.lease, Part(entries=3)))
    await asyncio.to_thread(until, lambda: server.ask("DBSIZE") == 3)  # the record, the rates, what is refunded
    proxy.lose_replies = False
    proxy.cut()
    await refunding
    assert await used(counters) == 7
    await counters.aclose()


async def test_a_cancelled_caller_leaves_no_answer_for_the_next(proxy: Proxy) -> None:
    """A tenant must never get another one's numbers, however its predecessor on the connection ended."""
    counters = RedisCounters(proxy.url, timeout_ms=5000)
    limits = {f"tenant-{number}": 1000 + number for number in range(20)}
    policies = {tenant: rates((limit, 3_600_000)) for tenant, limit in limits.items()}

    async def ask(tenant: str) -> Tally:
        return await counters.decide(charge(tenant, 1, policies[tenant]))

    await ask("tenant-0")
    proxy.delay_s = 0.02
    for _ in range(5):
        leaving = [asyncio.create_task(ask(tenant)) for tenant in limits]
        await asyncio.sleep(0.005)
        for task in leaving[::2]:
            task.cancel()
        answers = await asyncio.gather(*leaving, return_exceptions=True)
        for number, (limit, answer) in enumerate(zip(limits.values(), answers, strict=True)):
            if number % 2 == 0 and isinstance(answer, asyncio.CancelledError):
                continue
            assert isinstance(answer, Tally)  # who did not leave has one, whoever left beside
            assert answer.readings[0].limit == limit
    await counters.aclose()


@pytest.mark.parametrize("hang", HANGS)
async def test_a_server_that_never_answers_costs_the_budget_once(hang: str) -> None:
    """Connecting, greeting and asking have one budget together, and all who wait share the wait."""
    async with hanging(hang) as url:
        counters = RedisCounters(url, timeout_ms=BUDGET_MS)
        async with stopwatch() as waited:
            answers = await asyncio.gather(*(counters.decide(charge()) for _ in range(50)), return_exceptions=True)
            assert waited() < BUDGET_MS / 1000 + SLACK_S
        assert {str(answer) for answer in answers} == {"counters unavailable: timeout"}
        for _ in range(100):
            with pytest.raises(CountersUnavailable):
                at_once(counters.decide(charge()))
        await counters.aclose()


SCRIPT_GONE = b"-NOSCRIPT No matching script. Please use EVAL.\r\n"


@pytest.mark.parametrize("error", [SCRIPT_GONE, b"-ERR Error running script: NOSCRIPT no matching script\r\n"])
async def test_a_server_that_never_learns_the_script_is_an_outage(error: bytes) -> None:
    """At most one reload for a decision, never a loop, whatever the error looks like."""
    async with answering(saying(error)) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        assert await refused(counters) == "noscript"
        assert fake.names() == ["EVALSHA", "EVAL"]
        await counters.aclose()


async def test_forgotten_scripts_are_sent_again_unnoticed(server: Node) -> None:
    """SCRIPT FLUSH, a restart and a fail-over all do it; the decision is charged once."""
    counters = RedisCounters(server.url, timeout_ms=2000)
    for number in range(1, 4):
        server.ask("SCRIPT", "FLUSH")
        assert (await counters.decide(charge())).charged
        assert await used(counters) == number * 10
    await counters.aclose()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (b"-LOADING Redis is loading the dataset in memory", "loading"),
        (b"-READONLY You can't write against a read only replica.", "readonly"),
        (b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "readonly"),
        (b"-NOREPLICAS Not enough good replicas to write.", "readonly"),
        (b"-MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.", "readonly"),
        (b"-OOM command not allowed when used memory > 'maxmemory'.", "oom"),
        (b"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "busy"),
        (b"-NOPERM this user has no permissions to run the 'evalsha' command", "noperm"),
        (b"-NOAUTH Authentication required.", "auth"),
        (b"-WRONGPASS invalid username-password pair or user is disabled.", "auth"),
        (b"-DENIED Redis is running in protected mode.", "auth"),
        (b"-ERR max number of clients reached", "connection"),
        (b"-CLUSTERDOWN The cluster is down", "cluster"),
        (b"-MOVED 3999 127.0.0.1:6381", "cluster"),
        (b"-ERR unknown command 'EVALSHA'", "script"),
        (b"-ERR Error running script (call to f_1): @user_script:12: -READONLY You can't write", "readonly"),
        (b"-ERR Error running script (call to f_1): @user_script:12: -OOM command not allowed", "oom"),
        (b"+OK", "other"),
        (b":1", "other"),
        (b"*-1", "other"),
        (b"$5\r\nhello", "other"),
        (b"*0", "other"),
        (b"*2\r\n*1\r\n:1\r\n*1\r\n:1", "other"),
        (b"HTTP/1.1 400 Bad Request", "other"),
    ],
)
async def test_every_error_of_a_server_is_an_outage_with_a_reason(error: bytes, reason: str, edges: Edges) -> None:
    """No error may ever read as an answer, least of all as a yes."""
    async with answering(saying(error + b"\r\n")) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        edges.watch(counters)
        assert await refused(counters) == reason
        await asyncio.sleep(0)
        with pytest.raises(CountersUnavailable):
            at_once(counters.decide(charge()))
        assert edges == [(True, reason)]
        await counters.aclose()


def _packed(value: object) -> bytes:
    found = msgpack.encode(value)
    return b"$%d\r\n%s\r\n" % (len(found), found)


@pytest.mark.parametrize(
    "words",
    [
        b"*1\r\n:1\r\n",
        b">1\r\n:1\r\n",
        b"$1\r\na\r\n",
        b"*1\r\n$3\r\nabc\r\n",
        b"*1\r\n*1\r\n:1\r\n",
        b"*1\r\n*6\r\n:1\r\n:0\r\n$1\r\na\r\n:1\r\n:1\r\n:1\r\n",
        b"*1\r\n*2\r\n:-1\r\n:5\r\n",
        *map(
            _packed,
            [
                [1],
                [[]],
                [[1]],
                [[1, 0]],
                [[1, 0, 1, 2, 3]],
                [[1, 0, 1, 2, 3, 4, 5]],
                [[7, 0, 1, 2, 3, 4]],
                [[True, 0, 1, 2, 3, 4]],
                [[1.5, 0, 1, 2, 3, 4]],
                [["a", 0, 1, 2, 3, 4]],
                [[1, "x", 1, 2, 3, 4]],
                [[None, 0, 1, 2, 3, 4]],
                ["hello!"],
                [[-1]],
                [[-1, 5]],
                {1: 2},
            ],
        ),
    ],
)
async def test_what_no_script_answers_is_never_a_yes(words: bytes) -> None:
    """Nor an error that the counters do not know: something else stands where the server was."""
    async with answering(saying(words)) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        assert await refused(counters) == "other"
        if words[1:] != b"1\r\n:1\r\n":  # what a release and a refund do answer
            for ask in (counters.release, counters.refund):
                with pytest.raises(CountersUnavailable):
                    await ask("acme", Lease(new_id()))
        await counters.aclose()


@pytest.mark.parametrize(
    "slots",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"*-1\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*2\r\n:0\r\n:16383\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n:1\r\n:1\r\n",
        b"*1\r\n*3\r\n:0\r\n$1\r\nx\r\n*2\r\n$1\r\nh\r\n:1\r\n",
    ],
)
async def test_what_tells_of_no_slots_is_an_outage(slots: bytes) -> None:
    """What stands at a cluster's address need not be one, and the request is decided all the same."""
    async with answering(saying(slots)) as fake:
        counters = RedisCounters(fake.url.replace("redis://", "redis+cluster://"), timeout_ms=1000)
        assert await refused(counters) == "other"
        await counters.aclose()


@pytest.mark.parametrize(
    "words", [b"-MOVED x\r\n", b"-ASK\r\n", b"-MOVED 3999 127.0.0.1\r\n", b"-ASK 1 h:x\r\n", b"%1\r\n*0\r\n:2\r\n"]
)
async def test_what_the_driver_cannot_read_is_an_outage_and_no_error_of_the_event_loop(words: bytes) -> None:
    """Redirections that name no place: the loop would log a trace for each, and the reason would be a guess."""
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with answering(saying(words)) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        assert await refused(counters) == "other"
        await counters.aclose()
    assert told == []


@pytest.mark.parametrize("words", [b"-MOVED x\r\n", b"%1\r\n*0\r\n:2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_nonsense_in_answer_to_a_password_is_an_outage_too(words: bytes) -> None:
    """The driver reads that reply, and raises what comes to its mind."""
    async with answering(lambda command: words) as fake:
        counters = RedisCounters(fake.url.replace("//", "//:secret@"), timeout_ms=1000)
        assert await refused(counters) == "other"
        await counters.aclose()


@pytest.mark.parametrize("words", [b"+OK\r\n+OK\r\n", b":1\r\n$2\r\nab\r\n*0\r\n"])
async def test_more_replies_than_questions_are_nobodys(words: bytes) -> None:
    """The next question on that connection would get the answer to another one."""
    async with answering(saying(words)) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        assert await refused(counters) == "other"
        await counters.aclose()


async def test_a_server_that_says_why_before_it_hangs_up_is_believed() -> None:
    """A protected mode answers the first command, closes, and never looks at the second."""

    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-DENIED Redis is running in protected mode.\r\n")
        await writer.drain()

    async with accepting(turn_away) as port:
        counters = RedisCounters(f"redis://127.0.0.1:{port}", timeout_ms=1000)
        assert await refused(counters) == "auth"
        await counters.aclose()


async def test_a_connection_that_dies_while_nothing_is_asked_is_forgotten_at_once(server: Node) -> None:
    """Its end is seen when it comes, so that the next decision need not fail on it first."""
    counters = RedisCounters(server.url, timeout_ms=2000)
    await counters.decide(charge())
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    await asyncio.sleep(0.05)
    assert (await asyncio.gather(*(counters.decide(charge()) for _ in range(5))))[0].charged
    assert await used(counters) == 60
    await counters.aclose()


@pytest.mark.parametrize("answer", [b"-ERR unknown command 'HELLO'\r\n", HELLO.replace(b"7.2.4", b"6.0.9")])
async def test_a_server_that_is_too_old_is_an_outage(answer: bytes) -> None:
    """Half-supported scripts could count wrongly; the reason says what to do."""
    async with answering(saying(b"*1\r\n*2\r\n:1\r\n:0\r\n", answer)) as fake:
        counters = RedisCounters(fake.url, timeout_ms=1000)
        assert await refused(counters) == "version"
        await counters.aclose()


async def test_a_server_that_does_not_let_its_version_be_asked_is_used(server: Node) -> None:
    """The least that an ACL must allow is scripts and what they do."""
    server.ask("ACL", "SETUSER", "guard", "on", ">secret", "~fanout:*", "+@all", "-hello")
    counters = RedisCounters(server.url.replace("//", "//guard:secret@"), timeout_ms=2000)
    assert (await counters.decide(charge())).charged
    await counters.aclose()


async def test_few_connections_serve_any_number_of_decisions(server: Node) -> None:
    """A thousand at once share what a worker has open."""
    counters = RedisCounters(server.url, timeout_ms=10_000)
    tasks = [charge(f"tenant-{number}") for number in range(1000)]
    tallies = await asyncio.gather(*map(counters.decide, tasks))
    assert all(tally.charged for tally in tallies)
    await asyncio.gather(*(counters.release(one.tenant, one.lease) for one in tasks))
    await asyncio.gather(*(counters.refund(one.tenant, one.lease) for one in tasks))
    assert server.ask("CLIENT", "LIST", "TYPE", "normal").count(b"\n") <= 6
    await counters.aclose()


async def test_a_user_that_may_not_write_everything_is_an_outage_until_it_may(server: Node, edges: Edges) -> None:
    """One line at each edge, not one for every probe that gets half-way."""
    server.ask("ACL", "SETUSER", "guard", "on", ">secret", "~fanout:*", "+@all", "-zadd")
    counters = RedisCounters(server.url.replace("//", "//guard:secret@"), timeout_ms=2000)
    edges.watch(counters)
    held = Policy(circulation=None, document=None, rates=(Rate(1000, 3_600_000),), inflight=100)
    with pytest.raises(CountersUnavailable, match="noperm"):
        await counters.decide(charge(policy=held))
    await asyncio.sleep(1.2)
    assert edges == [(True, "noperm")]
    server.ask("ACL", "SETUSER", "guard", "+zadd")
    await asyncio.to_thread(until, lambda: len(edges) == 2)
    assert (await counters.decide(charge(policy=held))).charged
    assert await used(counters) == 10
    await counters.aclose()


async def test_a_right_that_only_some_decisions_need_is_one_outage_too(server: Node, edges: Edges) -> None:
    """A document that goes out again to the same sites is written in another way than a new one."""
    server.ask("ACL", "SETUSER", "guard", "on", ">secret", "~fanout:*", "+@all", "-setrange")
    counters = RedisCounters(server.url.replace("//", "//guard:secret@"), timeout_ms=2000)
    edges.watch(counters)
    policy = Policy(circulation=None, document=10, document_window_ms=3_600_000)

    async def circulate() -> bool:
        lease = Lease(new_id(), b"d" * 16)
        one = Charge(lease=lease, tenant="acme", cost=1, sites=bytes(8), policy=policy, lease_ms=60_000)
        return (await counters.decide(one)).charged

    assert await circulate()
    assert await circulate()
    with pytest.raises(CountersUnavailable, match="noperm"):
        await circulate()
    await asyncio.sleep(1.2)
    assert edges == [(True, "noperm")]
    server.ask("ACL", "SETUSER", "guard", "+setrange")
    await asyncio.to_thread(until, lambda: len(edges) == 2)
    assert await circulate()
    await counters.aclose()
