"""Looking up the name of a server, in a thread that nobody else needs."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread


async def found(host: str) -> None:
    """Return once the resolver has found ``host``, or raise what it says.

    A lookup cannot be given up: it keeps its thread until the resolver answers, or has given up itself. The driver
    would take one of the few threads that the application needs for its own work, and another one with each attempt to
    connect. So it is given only names that were found just now.
    """
    if _is_address(host):
        return
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    # A daemon: the process may end before the lookup does.
    Thread(target=_look_up, args=(host, loop, told), name="fanout_guard lookup", daemon=True).start()
    await told


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _look_up(host: str, loop: asyncio.AbstractEventLoop, told: asyncio.Future[None]) -> None:
    error = None
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except Exception as failure:  # any: a name that cannot be encoded is a ValueError
        error = failure
    with suppress(RuntimeError):  # the loop has been closed meanwhile
        loop.call_soon_threadsafe(_tell, told, error)


def _tell(told: asyncio.Future[None], error: Exception | None) -> None:
    if told.done():  # whoever asked has left
        return
    if error is None:
        told.set_result(None)
    else:
        told.set_exception(error)
