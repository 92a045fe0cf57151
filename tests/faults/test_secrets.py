"""No password in anything that can be read, however a connection fails and whatever characters it has."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from fanout_guard import ConfigurationError, FanoutGuard, Settings
from fanout_guard.counters.shared import RedisCounters
from fanout_guard.errors import CountersUnavailable
from tests.faults.network import answering
from tests.faults.servers import Node, cluster, running, watched
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORDS = ("hunter22", "p@ss:w/rd", "100%40sure", "#?&=+ ;", "пароль-ö", "'\"\\{}$(x)")


@pytest.fixture(params=PASSWORDS)
def password(request: pytest.FixtureRequest) -> str:
    """A password."""
    return str(request.param)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, tracebacks included."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


def login(url: str, password: str) -> str:
    """The address with the password in it."""
    return url.replace("//", f"//guard:{quote(password, safe='')}@")


def hides(text: str, password: str) -> bool:
    """Whether neither the password nor its encoded form is in it."""
    return password not in text and quote(password, safe="") not in text


def all_of(error: BaseException | None) -> str:
    """All that an error and those before it say, also those that a traceback does not show."""
    said = ""
    while error is not None:
        said += repr(error) + "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__
    return said


async def shown(url: str) -> str:
    """What is to be seen of counters at this address that cannot be used."""
    guard = FanoutGuard(
        Settings.from_env(
            {"FANOUT_GUARD_REDIS_URL": url, "FANOUT_GUARD_RATE": "5/day", "FANOUT_GUARD_ON_OUTAGE": "open"}
        )
    )
    counters = RedisCounters(url, timeout_ms=500)
    seen = repr(guard) + repr(guard.settings) + repr(vars(guard)) + repr(counters)
    decision = await guard.admit(tenant="acme", document="d", sites=["a"])
    assert decision.degraded
    seen += repr(decision)
    for ask in (lambda: counters.command("PING"), lambda: guard.usage("acme")):
        with pytest.raises(CountersUnavailable) as caught:
            await ask()
        seen += all_of(caught.value)
    seen += repr(vars(counters.session.channel)) + repr(vars(counters.server))
    await asyncio.sleep(0.3)  # the probe fails too
    await counters.aclose()
    await guard.aclose()
    return seen


async def test_nothing_shows_it_where_nobody_listens(password: str, log: io.StringIO) -> None:
    """The most frequent failure of all."""
    addresses = (("redis", ""), ("rediss", ""), ("redis+sentinel", "/counters"), ("redis+cluster", ""))
    urls = [login(f"{scheme}://127.0.0.1:{free_port()}{path}", password) for scheme, path in addresses]
    assert hides("".join(await asyncio.gather(*map(shown, urls))), password)
    assert hides(log.getvalue(), password)


async def test_nothing_shows_it_where_it_is_wrong(password: str, log: io.StringIO) -> None:
    """A server that quotes what it was sent must not be quoted in turn."""
    with running() as node:
        assert hides(await shown(login(node.url, password)), password)
    echo = f"-ERR invalid password '{password}'\r\n".encode()
    async with answering(lambda command: echo) as fake:
        assert hides(await shown(login(fake.url, password)), password)
    assert hides(log.getvalue(), password)


@pytest.mark.slow
async def test_nothing_shows_it_behind_sentinels_and_in_clusters(password: str, log: io.StringIO) -> None:
    """Where it goes to many servers."""
    with watched() as service:
        assert hides(await shown(login(service.url, password)), password)
    with cluster() as nodes:
        assert hides(await shown(login(nodes.url, password)), password)
    assert hides(log.getvalue(), password)


@pytest.mark.parametrize("bad", ["redis://guard:{}@host:70000/0", "redis://guard:{}@/0/1", "http://guard:{}@host"])
def test_no_bad_address_shows_it(password: str, bad: str) -> None:
    """Nor does the refusal to start."""
    for spelled in (password, quote(password, safe="")):
        url = bad.format(spelled)
        with pytest.raises(ConfigurationError) as caught:
            FanoutGuard(Settings.from_env({"FANOUT_GUARD_REDIS_URL": url}))
        assert hides(all_of(caught.value), password)


@pytest.fixture(scope="module")
def server() -> Iterator[Node]:
    """A server that knows no such user."""
    with running() as node:
        yield node


@pytest.mark.parametrize("command", ["check-config", "doctor", "usage", "top --once", "caps list", "leases acme"])
def test_no_command_prints_it(server: Node, command: str) -> None:
    """Not when nobody listens, nor when the password is wrong, nor in JSON."""
    password = PASSWORDS[1]
    for url in (f"redis://127.0.0.1:{free_port()}", server.url):
        environ = {**os.environ, "FANOUT_GUARD_REDIS_URL": login(url, password)}
        ended = subprocess.run(
            [sys.executable, "-m", "fanout_guard", *command.split()],
            cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert hides(ended.stdout + ended.stderr, password)
        assert "Traceback" not in ended.stderr
