"""Looking up the name of a server, in a thread that nobody else needs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread

from fanout_guard.counters.budget import quietly


class Lookup:
    """The lookup under way in one event loop, if there is one.

    A lookup cannot be given up: it keeps its thread until the resolver answers, or has given up itself. The driver
    would take one of the few threads that the application needs for its own work, and another one with each attempt to
    connect. So it is given only names that were found just now, and the attempts of an outage share one lookup.
    """

    def __init__(self) -> None:
        self._host = ""
        self._found: asyncio.Future[None] | None = None

    async def of(self, host: str) -> None:
        """Return once the resolver has found ``host``, or raise what it says."""
        if _is_address(host):
            return
        found = self._found
        if found is None or found.done() or host != self._host:
            found = _begun(host)
            self._host, self._found = host, found
        await asyncio.wait((found,))  # which leaves it alone if this attempt is given up
        found.result()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _begun(host: str) -> asyncio.Future[None]:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()
    found.add_done_callback(quietly)  # whoever asked may have left
    # A daemon: the process may end before the lookup does.
    Thread(target=_look_up, args=(host, loop, found), name="fanout_guard lookup", daemon=True).start()
    return found


def _look_up(host: str, loop: asyncio.AbstractEventLoop, found: asyncio.Future[None]) -> None:
    error = None
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except Exception as failure:  # any: a name that cannot be encoded is a ValueError
        error = failure
    with suppress(RuntimeError):  # the loop has been closed meanwhile
        if error is None:
            loop.call_soon_threadsafe(found.set_result, None)
        else:
            loop.call_soon_threadsafe(found.set_exception, error)
