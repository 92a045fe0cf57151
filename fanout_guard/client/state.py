"""What has happened to every site, and where a caller keeps it so that a later call can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock
from types import TracebackType
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta, Struct, structs

from fanout_guard.client.sites import Site, read_site, spell
from fanout_guard.errors import FanoutGuardError

SCHEMA: Literal["fanout-guard-circulation/1"] = "fanout-guard-circulation/1"


class StateError(FanoutGuardError):
    """Raised when a state cannot be used: unreadable, not writable, of another document, or already in use."""


class Chunk(Struct, frozen=True):
    """The sites of one circulation, its idempotency key, and when it was first sent (seconds since 1970)."""

    sites: tuple[str, ...]
    key: str
    sent_at: float = 0.0


class State(Struct, frozen=True, kw_only=True):
    """Which sites the API accepted, and which it may have accepted; any other site has not been sent.

    Sites are kept as JSON text. ``document`` is a digest of the document, ``run`` names this campaign of it.
    ``sending`` is written before a request leaves and removed with its answer, so a process that dies in between
    leaves the doubt on record.
    """

    document: str
    run: str
    delivered: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    sending: Chunk | None = None

    def settle(self, *, delivered: Iterable[object] = (), not_delivered: Iterable[object] = ()) -> State:
        """The state after you have found out what became of unknown sites; other sites stay as they are."""
        doubted = set(self.doubted)
        arrived = {site: None for site in map(spell, delivered) if site in doubted}
        settled = {*arrived, *map(spell, not_delivered)}
        still = [site for site in self.doubted if site not in settled]
        return structs.replace(self, delivered=(*self.delivered, *arrived), unknown=tuple(still), sending=None)

    @property
    def in_doubt(self) -> tuple[Site, ...]:
        """The sites that may or may not have received the document, as ``settle`` takes them."""
        return tuple(map(read_site, self.doubted))

    @property
    def doubted(self) -> tuple[str, ...]:
        """The sites in doubt, as they are kept."""
        return self.unknown + (self.sending.sites if self.sending else ())

    def to_json(self) -> str:
        """The state as a JSON document, one site a line."""
        # The spellings are JSON already. They are only joined, so that a save is cheap for any number of sites.
        sending = self.sending
        members = {
            "schema": json.dumps(SCHEMA),
            "document": json.dumps(self.document),
            "run": json.dumps(self.run),
            "delivered": _lines(self.delivered),
            "unknown": _lines(self.unknown),
            "sending": "null" if sending is None else _sending_json(sending),
        }
        return "{\n" + ",\n".join(f' "{name}": {value}' for name, value in members.items()) + "\n}"

    @classmethod
    def from_json(cls, text: str | bytes) -> State:
        """Read what ``to_json`` wrote; raises StateError for anything else."""
        try:
            return _read_state(text)
        except RecursionError as error:
            raise StateError("not a state of a circulation: nested too deeply") from error
        except ValueError as error:
            raise StateError(f"not a state of a circulation: {error}") from error


def _lines(spellings: tuple[str, ...]) -> str:
    return "[\n  " + ",\n  ".join(spellings) + "\n ]" if spellings else "[]"


def _sending_json(chunk: Chunk) -> str:
    return f'{{"sites": {_lines(chunk.sites)}, "key": {json.dumps(chunk.key)}, "sent_at": {json.dumps(chunk.sent_at)}}}'


class _Sending(Struct, forbid_unknown_fields=True):
    sites: Annotated[list[Any], Meta(min_length=1)]
    key: Annotated[str, Meta(pattern=r"^[!-~]+\Z")]  # what a header can carry
    sent_at: Annotated[float, Meta(ge=0, le=1e11)]


class _Document(Struct, forbid_unknown_fields=True):
    """The file's members: every one is needed, for a list that is not there would be sent again."""

    schema: Literal["fanout-guard-circulation/1"]
    document: str
    run: str
    delivered: list[Any]
    unknown: list[Any]
    sending: _Sending | None


def _read_state(text: str | bytes) -> State:
    # Read by json, which spelled it, so that a number keeps its spelling; msgspec only checks.
    document = msgspec.convert(json.loads(text), _Document)
    sending = document.sending
    return State(
        document=document.document,
        run=document.run,
        delivered=tuple(map(spell, document.delivered)),
        unknown=tuple(map(spell, document.unknown)),
        sending=None if sending is None else Chunk(tuple(map(spell, sending.sites)), sending.key, sending.sent_at),
    )


class Journal:
    """Keeps the state in memory: still correct after an interrupt, gone with the process.

    A subclass can keep it elsewhere; its ``save`` raises StateError if it cannot.
    """

    def __init__(self, state: State | None = None) -> None:
        self.state: State | None = state
        self._turn = Lock()

    def save(self, state: State) -> None:
        """Keep the newest state; called before each request and after each answer."""
        self.state = state

    async def save_async(self, state: State) -> None:
        """The same, for ``circulate_async``; where keeping takes long, it must not hold up the event loop."""
        self.save(state)

    @contextmanager
    def circulating(self) -> Iterator[Self]:
        """Held by ``circulate`` while it runs, inside a ``with`` of the caller's or without: one at a time."""
        if not self._turn.acquire(blocking=False):
            raise StateError("the state is in use by another circulation")
        try:
            with self:
                yield self
        finally:
            self._turn.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None
