"""Every kind of address of one server, each on real ones."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest
from redis.asyncio.connection import SSLConnection

from fanout_guard.counters import redis_address
from fanout_guard.counters.redis_address import parse_address
from fanout_guard.counters.redis_names import Lookup
from fanout_guard.counters.shared import RedisCounters
from tests.counters.servers import binary_of
from tests.counters.using import charge, refusal, used, works
from tests.faults.network import answering, saying
from tests.faults.servers import running, watched
from tests.ports import free_port
from tests.waiting import until

AWKWARD = "p@ss:w/ö%40rd #?&=+"
"""A password with what an address gives a meaning to."""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate authority of our own, and what it says of this machine."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    folder = tmp_path_factory.mktemp("tls")
    for command in (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=ours"
        " -addext keyUsage=critical,keyCertSign",
        "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out server.crt -extfile names",
    ):
        (folder / "names").write_text("subjectAltName=DNS:localhost\nauthorityKeyIdentifier=keyid\n")
        subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def secured(certificates: Path) -> Iterator[int]:
    """The port of a server that speaks TLS."""
    binary = binary_of("redis")
    if binary is None or b"tls-cert-file" not in Path(binary).read_bytes():
        pytest.skip("no server with TLS on this machine")
    port = free_port()
    options = ["--tls-port", str(port), "--tls-auth-clients", "no"]
    for name, file in (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")):
        options += [f"--tls-{name}-file", str(certificates / file)]
    with running(*options, kind="redis"):
        yield port


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_one_server_over_tcp_in_another_database(kind: str) -> None:
    """The usual deployment."""
    with running(kind=kind) as node:
        await works(f"{node.url}/3")
        assert node.ask("DBSIZE") == 0


async def test_one_server_over_a_unix_socket(tmp_path: Path) -> None:
    """No port, no network."""
    path = tmp_path / "a b%.sock"
    with running("--unixsocket", str(path)):
        await works(f"unix://{quote(str(path))}?db=2")


async def test_a_resolver_that_is_silent_costs_the_application_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lookup that was given up goes on for seconds, and each attempt of an outage begins another one."""
    answers, look_up = threading.Event(), socket.getaddrinfo

    def silent(host: str, *rest: Any, **options: Any) -> Any:
        if host != "counters.test":
            return look_up(host, *rest, **options)
        answers.wait()
        return look_up("127.0.0.1", *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    with running() as node:
        url = f"redis://counters.test:{node.port}"
        try:
            assert await refusal(url) == "timeout"
            assert await asyncio.wait_for(asyncio.to_thread(int), 20) == 0
        finally:
            answers.set()
        await works(url)


async def test_attempts_to_connect_share_one_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage of a resolver lasts, and a thread for each attempt of it would be hundreds of them."""
    answers, asked = threading.Event(), []

    def silent(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        answers.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    lookup = Lookup()
    attempts = [asyncio.create_task(lookup.of("counters.test")) for _ in range(3)]
    await asyncio.to_thread(until, lambda: asked == ["counters.test"])
    attempts[0].cancel()
    attempts.append(asyncio.create_task(lookup.of("counters.test")))
    other = asyncio.create_task(lookup.of("sentinel.test"))
    await asyncio.to_thread(until, lambda: len(asked) == 2)
    answers.set()
    await asyncio.gather(*attempts[1:], other)
    assert asked == ["counters.test", "sentinel.test"]
    await lookup.of("counters.test")
    assert len(asked) == 3, "the server may have another address by then"


async def test_a_lookup_that_nobody_waits_for_any_more_fails_in_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio logs an error that nobody has looked at, one for each attempt that was given up."""
    answers, ended = threading.Event(), threading.Event()

    def unknown(*_: Any, **__: Any) -> Any:
        answers.wait()
        ended.set()
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(Lookup().of("counters.test"), 0.01)
    answers.set()
    await asyncio.to_thread(ended.wait)
    await asyncio.to_thread(
        until, lambda: not any(each.name == "fanout_guard lookup" for each in threading.enumerate())
    )
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.text == ""


async def test_a_name_that_no_resolver_knows_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server that refuses is."""

    def unknown(*names: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await refusal("redis://counters.test") == "connection"


async def test_a_password_of_any_characters_is_sent_as_it_is() -> None:
    """Credentials are percent-encoded in an address, and decoded once."""
    with running() as node:
        node.ask("ACL", "SETUSER", "gu@rd", "on", f">{AWKWARD}", "~*", "+@all")
        login = f"{quote('gu@rd', safe='')}:{quote(AWKWARD, safe='')}"
        await works(node.url.replace("//", f"//{login}@"))
        node.ask("CONFIG", "SET", "requirepass", AWKWARD)
        await works(node.url.replace("//", f"//:{quote(AWKWARD, safe='')}@"))
        await works(f"{node.url}/0?password={quote(AWKWARD, safe='')}")
        assert await refusal(node.url) == "auth"
        assert await refusal(node.url.replace("//", "//:wrong@")) == "auth"


def test_an_address_tells_nothing_when_it_is_shown() -> None:
    """Whoever prints what was parsed must not print the password."""
    servers = parse_address(f"redis+cluster://user:{quote(AWKWARD, safe='')}@h1:1,[::1]:2,h3")
    assert servers.nodes == (("h1", 1), ("::1", 2), ("h3", 6379))
    assert servers.options["password"] == AWKWARD
    assert AWKWARD not in repr(servers)
    assert AWKWARD not in repr(servers.connection(servers.nodes[0]))


def test_certificates_are_read_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a system take some 30 ms, in which a worker does nothing else; renewed ones are seen all the same."""
    times = iter((1000.0, 1001.0, 1061.0))
    monkeypatch.setattr(redis_address, "monotonic", lambda: next(times))
    servers = parse_address("rediss://h")
    first, second, renewed = (cast(SSLConnection, servers.connection(("h", 1))).ssl_context for _ in range(3))
    assert first is second
    assert first is not renewed


async def test_tls_with_an_authority_that_is_known(secured: int, certificates: Path) -> None:
    """Encrypted, and verified to be whom the address names."""
    await works(f"rediss://localhost:{secured}/0?ssl_ca_certs={quote(str(certificates / 'ca.crt'))}")


async def test_tls_is_verified_unless_told_otherwise(secured: int, certificates: Path) -> None:
    """Neither an unknown authority nor another name passes; the way out is explicit."""
    assert await refusal(f"rediss://localhost:{secured}/0") == "connection"
    assert await refusal(f"rediss://127.0.0.1:{secured}/0?ssl_ca_certs={certificates / 'ca.crt'}") == "connection"
    assert await refusal(f"redis://localhost:{secured}/0") == "connection"
    await works(f"rediss://127.0.0.1:{secured}/0?ssl_ca_certs={certificates / 'ca.crt'}&ssl_check_hostname=false")
    await works(f"rediss://127.0.0.1:{secured}/0?ssl_cert_reqs=none&ssl_check_hostname=no")
    await works(f"redis://localhost:{secured}/0?ssl=true&ssl_ca_certs={certificates / 'ca.crt'}")


async def test_the_master_behind_sentinels() -> None:
    """Also where the first Sentinel of the address is not there."""
    with watched() as service:
        await works(service.url)
        await works(service.url.replace("//", f"//127.0.0.1:{free_port()},") + "/0")
        assert await refusal(service.url.replace(service.SERVICE, "other")) == "connection"


async def test_a_planned_fail_over_is_followed_to_the_new_master() -> None:
    """The old one is still there and answers, but what is written to it would be lost."""
    with watched() as service:
        counters = RedisCounters(service.url, timeout_ms=2000)
        assert (await counters.decide(charge())).charged
        await asyncio.to_thread(until, lambda: service.replica.ask("DBSIZE") == service.master.ask("DBSIZE"))
        await asyncio.to_thread(service.hand_over)
        assert (await counters.decide(charge())).charged
        assert await used(counters) == {"rate-3600": 20, "inflight": 20, "inflight-global": 20}
        await counters.aclose()


async def test_a_sentinel_that_names_a_replica_is_not_believed() -> None:
    """It may not have heard yet; the server itself says what it is when it is greeted."""
    with watched() as service:
        replica = b"*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%d\r\n" % service.replica.port
        async with answering(saying(replica)) as behind:
            assert await refusal(f"redis+sentinel://127.0.0.1:{behind.port}/counters") == "readonly"


async def test_sentinels_and_servers_with_a_password() -> None:
    """One password in the address, for the servers, and for Sentinels that ask for one."""
    with watched("s3cret") as service:
        await works(service.url.replace("//", "//:s3cret@"))
        assert await refusal(service.url) == "auth"
