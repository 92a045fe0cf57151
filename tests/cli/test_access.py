"""What all commands have in common that need the shared counters: statuses, one line a problem, no secret."""

from __future__ import annotations

import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from hiredis import Reader

from tests.cli.conftest import Run
from tests.cli.servers import serving
from tests.ports import free_port

NEED_SHARED_STATE = [
    ["usage"],
    ["usage", "acme"],
    ["top", "--once"],
    ["caps", "list"],
    ["caps", "set", "acme", "max_sites=5"],
    ["caps", "unset", "acme"],
    ["reset", "acme"],
    ["leases", "acme"],
]


@pytest.mark.parametrize("arguments", NEED_SHARED_STATE, ids=" ".join)
def test_without_a_server_a_command_says_why_it_cannot(arguments: list[str], run: Run) -> None:
    """Counters inside the application's processes cannot be seen from another one."""
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "FANOUT_GUARD_REDIS_URL" in answer.err


@pytest.mark.parametrize(
    "arguments", [*NEED_SHARED_STATE, ["reset", "acme", "--document", "d"], ["doctor"], ["check-config"]], ids=" ".join
)
def test_what_is_done_has_status_0_as_json_too(arguments: list[str], url: str, run: Run) -> None:
    """A script looks at the status before it reads the document, and at nothing else on standard error."""
    answer = run(*arguments, "--json")
    assert (answer.code, answer.err) == (0, "")
    assert isinstance(answer.document, dict)


@pytest.mark.parametrize("arguments", [*NEED_SHARED_STATE, ["doctor"]], ids=" ".join)
def test_a_server_out_of_reach_is_status_3_and_no_secret(
    arguments: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither yes nor no, and the password stays out of the terminal."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://user:hunter22@127.0.0.1:{free_port()}")
    answer = run(*arguments)
    assert answer.code == 3
    assert answer.err.count("\n") == 1
    assert "cannot be reached" in answer.err
    assert "hunter22" not in answer.out + answer.err


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("redis://user:hunt%40er%2F22@{place}/0", "auth: the server refuses the user or the password"),
        ("redis+cluster://user:hunt%40er%2F22@{place}", "the server refuses the user or the password"),
        ("redis+sentinel://{place}/main/0", "is that the service's name"),
        ("rediss://{place}?ssl_ca_certs=/no/such/file", "is its certificate trusted"),
        ("redis+cluster://{place}", "cluster: "),
        ("unix:///no/such/socket", "connection: nothing answers there"),
        ("redis://{place}/99", "does it have the database in the address"),
    ],
    ids=lambda value: value[:20],
)
@pytest.mark.parametrize("arguments", [["usage", "acme"], ["caps", "list"], ["top", "--once"]], ids=" ".join)
def test_one_line_says_what_is_the_matter_and_where(
    address: str, says: str, arguments: list[str], url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address with its password masked, the reason, and what that means."""
    place = url.removeprefix("redis://")
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", address.format(place=place))
    answer = run(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert says in answer.err
    assert address.partition("@")[2].format(place=place) in answer.err
    assert "22" not in answer.err.replace(place, "")


def test_a_server_with_no_place_for_another_client_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs at that very address, so that looking for it there would lead nowhere."""
    with serving() as place:
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://{place}")
        host, _, port = place.partition(":")
        with socket.create_connection((host, int(port))) as last:
            last.sendall(b"CONFIG SET maxclients 1\r\n")
            assert last.recv(100) == b"+OK\r\n"
            answer = run("doctor")
    assert answer.code == 3
    assert "or it takes no more clients (maxclients)" in answer.err


def test_a_cluster_that_is_none_is_one_problem(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fault of every check in turn would hide it."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("redis://", "redis+cluster://"))
    answer = run("doctor", "--json")
    assert answer.code == 1
    problems = [found["text"] for found in answer.document["findings"] if found["level"] == "problem"]
    assert len(problems) == 1
    assert "redis+cluster:// is for clusters" in problems[0]


@contextmanager
def standing_there(handle: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port where something else than a server of the guard's answers."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):
                handle(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield int(server.server_address[1])
        server.shutdown()


@pytest.fixture
def web_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks another protocol, which the environment names."""

    def answer(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with standing_there(answer) as port:
        url = f"redis://user:hunter22@127.0.0.1:{port}"
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url)
        yield url


@pytest.mark.parametrize("arguments", NEED_SHARED_STATE, ids=" ".join)
def test_a_server_of_another_kind_is_told(arguments: list[str], web_url: str, run: Run) -> None:
    """A wrong port is a common mistake, and something answers there."""
    answer = run(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert "does not behave like Redis" in answer.err
    assert "hunter22" not in answer.err


def test_a_server_of_another_kind_is_one_problem(web_url: str, run: Run) -> None:
    """Nothing else can be said of it."""
    answer = run("doctor", "--json")
    assert answer.code == 1
    (problem,) = [found for found in answer.document["findings"] if found["level"] == "problem"]
    assert problem["check"] == "connection"
    assert "does not behave like Redis" in problem["text"]


@pytest.fixture
def yes_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that answers every command with OK, which the environment names."""

    def answer(client: socket.socket) -> None:
        commands = Reader()
        while read := client.recv(65536):
            commands.feed(read)
            while commands.gets() is not False:
                client.sendall(b"+OK\r\n")

    with standing_there(answer) as port:
        url = f"redis://127.0.0.1:{port}"
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url)
        yield url


@pytest.mark.parametrize("arguments", NEED_SHARED_STATE, ids=" ".join)
def test_a_server_that_says_yes_to_everything_is_told(arguments: list[str], yes_url: str, run: Run) -> None:
    """A proxy or a stub speaks the protocol, and its answers are none to what was asked."""
    answer = run(*arguments)
    assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)
    assert "does not behave like Redis" in answer.err


def test_a_server_that_says_yes_to_everything_is_examined_to_the_end(yes_url: str, run: Run) -> None:
    """Each check that fails is a finding, and none of them an error of the command's own."""
    answer = run("doctor", "--json")
    assert (answer.code, answer.err) == (1, "")
    problems = {found["check"]: found["text"] for found in answer.document["findings"] if found["level"] == "problem"}
    assert "does not behave like Redis" in problems["scripts"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_refused_password_is_a_problem_and_not_shown(
    options: list[str], url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The doctor's output goes into tickets."""
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url.replace("redis://", "redis://user:hunter22@"))
    answer = run("doctor", *options)
    assert answer.code == 1
    assert "refuses the user or the password" in answer.out
    assert "hunter22" not in answer.out + answer.err


@pytest.mark.parametrize("tenant", ["", " acme", "acme ", "x" * 257, "\udc80"])
@pytest.mark.parametrize(
    "arguments", [["usage"], ["reset"], ["leases"], ["caps", "list"], ["caps", "unset"], ["simulate", "-", "--tenant"]]
)
def test_a_wrong_tenant_is_status_2(tenant: str, arguments: list[str], url: str, run: Run) -> None:
    """What can be no tenant's id is a mistake of whoever typed it."""
    answer = run(*arguments, tenant)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.count("\n") == 1
    assert "is not accepted" in answer.err
    assert "expected a tenant id: 1 to 256 bytes" in answer.err


@pytest.mark.parametrize("arguments", [["usage"], ["reset"], ["leases"]])
def test_the_defaults_are_no_tenant(arguments: list[str], url: str, run: Run) -> None:
    """``*`` stands for the defaults' caps; it has no counters that could be looked at, or reset."""
    assert run(*arguments, "*").code == 2


@pytest.mark.parametrize("arguments", [["usage"], ["reset"], ["leases"]])
def test_a_tenant_that_must_be_known_is_status_2(
    arguments: list[str], url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error must not look like a tenant that has used nothing."""
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    monkeypatch.setenv("FANOUT_GUARD_TENANT__acme__MAX_SITES", "5")
    answer = run(*arguments, "acmee")
    assert answer.code == 2
    assert "'acmee' is not known" in answer.err
    assert run(*arguments, "acme").code == 0


def test_the_caps_of_a_tenant_that_is_not_known_can_be_listed(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An override would make it known."""
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "reject")
    assert run("caps", "list", "acmee").code == 0


def test_the_shared_tenant_is_reset_by_its_own_name_only(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Resetting a mistyped tenant must not reset what all unknown ones share."""
    monkeypatch.setenv("FANOUT_GUARD_UNKNOWN_TENANTS", "shared")
    answer = run("reset", "acmee")
    assert answer.code == 2
    assert "counted as 'default'" in answer.err
    assert run("reset", "default").code == 0
    assert "counted as default" in run("usage", "acmee").out


@pytest.mark.parametrize("arguments", [["usage", "--json"], ["caps", "list", "--json"], ["doctor", "--json"]])
def test_a_real_process_ends_the_same_way(arguments: list[str], url: str) -> None:
    """No warning about a loop or a connection, which only show when an interpreter ends."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "fanout_guard", *arguments], capture_output=True, check=False
    )
    # The loop's debug mode tells of steps that a busy machine makes slow.
    told = [line for line in done.stderr.splitlines() if not line.startswith(b"Executing ")]
    assert (done.returncode, told) == (0, [])
