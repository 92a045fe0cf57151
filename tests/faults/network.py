"""A network between clients and a server that delays, loses and cuts; and servers that answer nonsense."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import hiredis

_STEP_S = 0.05


class Proxy:
    """Passes everything on, unless told otherwise; what it is told holds from now on."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.delay_s = 0.0
        """How late replies come."""
        self.lose_replies = False
        self.refuse = False
        """Whether who connects is cut off at once."""
        self.rewrite: Callable[[bytes], bytes] | None = None
        """What becomes of a reply."""
        self.connections = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        self.connections += 1
        if self.refuse:
            return
        try:
            upstream, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            return
        self._writers |= {writer, server}
        try:
            await asyncio.gather(self._requests(reader, server, writer), self._replies(upstream, writer, server))
        finally:
            self._end(writer, server)

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        self._end(writer, back)

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._delay()
                if self.rewrite is not None:
                    data = self.rewrite(data)
                if not self.lose_replies:
                    writer.write(data)
        self._end(writer, back)

    async def _delay(self) -> None:
        left_s = self.delay_s
        while left_s > 0:  # in steps, since what the machine stands still meanwhile is not the network's delay
            await asyncio.sleep(min(left_s, _STEP_S))
            left_s -= _STEP_S

    def _end(self, *writers: asyncio.StreamWriter) -> None:
        for writer in writers:
            writer.transport.abort()
            self._writers.discard(writer)


@asynccontextmanager
async def proxied(port: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a server on this machine."""
    proxy = Proxy(port)
    async with accepting(proxy.accept) as proxy.port:
        yield proxy


@contextmanager
def black_hole() -> Iterator[int]:
    """A port where connecting neither succeeds nor fails, as behind a firewall that drops everything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = int(listener.getsockname()[1])
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        try:
            yield port
        finally:
            for filler in fillers:
                filler.close()


class Answering:
    """Something that speaks the protocol and answers whatever ``answer`` makes of a command; keeps all commands."""

    def __init__(self, answer: Callable[[list[bytes]], bytes]) -> None:
        self._answer = answer
        self.commands: list[list[bytes]] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}"

    def names(self) -> list[str]:
        """What was asked, in order, without greetings."""
        return [name for command in self.commands if (name := command[0].decode()) != "HELLO"]

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client."""
        parser = hiredis.Reader()
        with suppress(OSError):
            while data := await reader.read(65536):
                parser.feed(data)
                while (command := parser.gets()) is not False:
                    self.commands.append(command)
                    writer.write(self._answer(command))


@asynccontextmanager
async def answering(answer: Callable[[list[bytes]], bytes]) -> AsyncIterator[Answering]:
    """A server that is none."""
    fake = Answering(answer)
    async with accepting(fake.accept) as fake.port:
        yield fake


@asynccontextmanager
async def accepting(
    accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A free port where ``accept`` gets each client; whoever is still connected at the end is cut off."""
    clients: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await accept(reader, writer)
        finally:
            writer.transport.abort()

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not listener.is_serving():  # accepted just before the end
            writer.transport.abort()
            return
        client = asyncio.create_task(serve(reader, writer))
        clients.add(client)
        client.add_done_callback(clients.discard)

    listener = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield int(listener.sockets[0].getsockname()[1])
    finally:
        listener.close()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


HELLO = b"*2\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n"
"""How a server of a good version greets."""


def saying(words: bytes, hello: bytes = HELLO) -> Callable[[list[bytes]], bytes]:
    """An ``answer`` that greets, and says the same to everything else."""
    return lambda command: hello if command[0] == b"HELLO" else words


HANGS = ("connecting", "answering")
"""What a server can keep a client waiting with for ever."""


@asynccontextmanager
async def hanging(hang: str) -> AsyncIterator[str]:
    """The address of a server that never gets past ``hang``."""
    if hang == "connecting":
        with black_hole() as port:
            yield f"redis://127.0.0.1:{port}"
    else:
        async with answering(lambda command: b"") as fake:
            yield fake.url
