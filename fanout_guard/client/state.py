"""What has happened to every site, and where a caller keeps it so that a later call can go on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from msgspec import Struct, structs

from fanout_guard.client.sites import read_site, spell
from fanout_guard.errors import FanoutGuardError

SCHEMA = "fanout-guard-circulation/1"


class StateError(FanoutGuardError):
    """Raised when a state cannot be used: unreadable, of another document, or in use by another process."""


class Chunk(Struct, frozen=True):
    """The sites of one circulation, its idempotency key, and when it was first sent (seconds since 1970)."""

    sites: tuple[str, ...]
    key: str
    sent_at: float = 0.0


class State(Struct, frozen=True, kw_only=True):
    """Which sites the API accepted, and which it may have; a site in neither has not been sent.

    ``document`` is a digest of the document, ``run`` names this campaign of it. ``sending`` is written before a
    request leaves and taken away with its answer, so a process that dies in between leaves the doubt on record.
    """

    document: str
    run: str
    delivered: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    sending: Chunk | None = None

    def settle(self, *, delivered: Iterable[object] = (), not_delivered: Iterable[object] = ()) -> State:
        """The state once a person has found out what became of unknown sites; others are left as they are."""
        open_ = set(self.unknown) | set(self.sending.sites if self.sending else ())
        arrived = [site for site in map(spell, delivered) if site in open_]
        missing = {site for site in map(spell, not_delivered) if site in open_}
        still = [site for site in self.in_doubt if site not in missing and site not in arrived]
        return structs.replace(self, delivered=(*self.delivered, *arrived), unknown=tuple(still), sending=None)

    @property
    def in_doubt(self) -> tuple[str, ...]:
        """The sites of which it is not known whether the document reached them."""
        return self.unknown + (self.sending.sites if self.sending else ())

    def to_json(self) -> str:
        """The state as a JSON document."""
        sending = self.sending
        document = {
            "schema": SCHEMA,
            "document": self.document,
            "run": self.run,
            "delivered": [read_site(site) for site in self.delivered],
            "unknown": [read_site(site) for site in self.unknown],
            "sending": sending
            and {
                "sites": [read_site(site) for site in sending.sites],
                "key": sending.key,
                "sent_at": sending.sent_at,
            },
        }
        return json.dumps(document, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> State:
        """Read what ``to_json`` wrote; raises StateError for anything else."""
        try:
            return _read_state(json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"not a state of a circulation: {error!r}") from error


def _read_state(document: Mapping[str, Any]) -> State:
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
    sending = document["sending"]
    return State(
        document=str(document["document"]),
        run=str(document["run"]),
        delivered=tuple(map(spell, document["delivered"])),
        unknown=tuple(map(spell, document["unknown"])),
        sending=sending and Chunk(tuple(map(spell, sending["sites"])), str(sending["key"]), float(sending["sent_at"])),
    )


class Journal:
    """Holds the state in memory: still right after an interrupt, gone with the process."""

    def __init__(self, state: State | None = None) -> None:
        self.state = state

    def save(self, state: State) -> None:
        """Keep the newest state; called before each request and after each answer."""
        self.state = state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class StateFile(Journal):
    """Keeps the state in a JSON file, replaced whole; one process at a time (a lock file stands beside it)."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self._lock: IO[bytes] | None = None
        self._load()

    def save(self, state: State) -> None:
        """Write the state so that a crash leaves either the old file or the new one."""
        super().save(state)
        fresh = self._beside(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.write(state.to_json())
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)

    def __enter__(self) -> Self:
        lock = self._beside(".lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise StateError(f"{self.path} is in use by another circulation") from error
        self._lock = lock
        self._load()  # again under the lock: another process may have gone on since
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _load(self) -> None:
        with suppress(FileNotFoundError):
            self.state = State.from_json(self.path.read_bytes())

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
