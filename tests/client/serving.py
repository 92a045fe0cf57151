"""An API that answers as the contract says, on a real socket: the model server behind Starlette and uvicorn."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.client.model_server import ModelServer


def publishing_api(server: ModelServer) -> Starlette:
    """Circulate as the model decides, by the real clock."""

    async def circulate(request: Request) -> Response:
        body = await request.json()
        server.now = time.monotonic()
        status, headers, content = server.answer(body["target_sites"])
        return Response(content, status, headers)

    return Starlette(routes=[Route("/circulate-document", circulate, methods=["POST"])])


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serve ``app`` on a free port and give its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def hanging_up() -> AbstractContextManager[str]:
    """A server that reads a request and closes the connection: nobody knows whether it was done."""

    def answer_nothing(connection: socket.socket) -> None:
        with connection:
            while b"target_sites" not in connection.recv(65536):
                pass
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    return accepting(answer_nothing)


@contextmanager
def accepting(take: Callable[[socket.socket], None]) -> Iterator[str]:
    """An address where each connection is taken by ``take``, one after the other."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            take(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
