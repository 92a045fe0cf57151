"""Whether a server is one for the guard's counters, by what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from redis import exceptions

from fanout_guard.counters.redis_hello import check_server
from fanout_guard.errors import CountersUnavailable


def hello(version: bytes, role: bytes = b"master") -> list[Any]:
    """What a server replies to HELLO, as far as it matters."""
    return [b"server", b"redis", b"version", version, b"proto", 2, b"id", 5, b"mode", b"standalone", b"role", role]


@pytest.mark.parametrize("version", [b"6.2.0", b"6.2.14", b"7.0.0", b"7.2.4", b"10.0.1", b"255.255.255"])
def test_a_server_from_the_oldest_supported_version_on_is_accepted(version: bytes) -> None:
    """Numbers, not texts: 10 is newer than 6."""
    check_server(hello(version), master=True)


@pytest.mark.parametrize("version", [b"5.0.14", b"6.0.16", b"6.1.240"])
def test_an_older_server_is_refused(version: bytes) -> None:
    """Its scripts would fail at the first decision, with a reason that helps nobody."""
    with pytest.raises(CountersUnavailable, match="version"):
        check_server(hello(version), master=False)


def test_a_replica_is_refused_where_it_has_to_be_the_master() -> None:
    """A fail-over is not over yet: nothing can be written there."""
    check_server(hello(b"7.2.4", b"slave"), master=False)
    with pytest.raises(CountersUnavailable, match="readonly"):
        check_server(hello(b"7.2.4", b"slave"), master=True)


@pytest.mark.parametrize(
    "reply",
    [
        exceptions.NoPermissionError("this user has no permissions to run the 'hello' command"),
        [b"server", b"other"],
        [b"version", b"unstable", b"role", b"master"],
        [b"version", 7],
        b"OK",
        None,
    ],
)
def test_a_server_that_does_not_tell_its_version_is_trusted(reply: object) -> None:
    """Proxies answer in their own way, and a user may be allowed the guard's scripts alone."""
    check_server(reply, master=True)


def test_a_server_that_is_not_ready_is_out_of_reach_for_its_own_reason() -> None:
    """Else an operator would look for a version where a password is wrong."""
    for error, reason in (
        (exceptions.AuthenticationError("WRONGPASS"), "auth"),
        (exceptions.BusyLoadingError("loading"), "loading"),
        (exceptions.ResponseError("unknown command 'HELLO'"), "version"),
    ):
        with pytest.raises(CountersUnavailable, match=reason):
            check_server(error, master=True)
