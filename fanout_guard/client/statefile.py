"""The state in a file: replaced whole, read strictly, used by one process at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE
from threading import Lock
from types import TracebackType
from typing import IO, Self

import anyio
import anyio.to_thread

from fanout_guard.client.state import Journal, State, StateError


class StateFile(Journal):
    """Keeps the state in a JSON file, always replaced whole, for one process at a time (with a lock file beside it).

    A ``with`` block locks the file, also for the circulations inside it. Raises StateError, with the path, if the file
    cannot be read, locked or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        with self._or_state_error("read"):
            # Resolved once: by a link, or after a change of directory, it might be another file, without what was sent.
            self.path = Path(os.path.realpath(path))
        self._lock: IO[bytes] | None = None
        self._holders = 0
        self._load()

    def save(self, state: State) -> None:
        """Write the state so that a crash leaves either the old file or the new one."""
        super().save(state)
        with self._or_state_error("written"):
            fresh = self._beside(".new")
            try:
                _write(fresh, state.to_json(), like=self.path)
                fresh.replace(self.path)
                _sync_folder(self.path.parent)
            except OSError:
                with suppress(OSError):  # half a file helps nobody, least of all on a full disk
                    fresh.unlink(missing_ok=True)
                raise

    async def save_async(self, state: State) -> None:
        """The same in a worker thread, for a disk may take its time; the file is whole also after a cancellation."""
        once = _Once(self, state)
        try:
            await anyio.to_thread.run_sync(once.save)
        except anyio.get_cancelled_exc_class():
            # Saved here, or waited for: the thread must not outlast the lock, and an answer must not be lost.
            with suppress(StateError):
                once.save()
            raise

    def __enter__(self) -> Self:
        if self._lock is None:
            self._lock = self._locked()
            try:
                self._load()  # again under the lock: another process may have gone on since
            except BaseException:
                self._unlock()
                raise
        self._holders += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holders -= 1
        if not self._holders:
            self._unlock()

    def _locked(self) -> IO[bytes]:
        with self._or_state_error("locked"):
            lock = self._beside(".lock").open("wb")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.close()
                raise StateError(f"{self.path} is in use by another circulation") from error
            except OSError:
                lock.close()
                raise
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _load(self) -> None:
        with self._or_state_error("read"):
            try:
                text = self.path.read_bytes()
            except FileNotFoundError:
                return
        try:
            self.state = State.from_json(text)
        except StateError as error:
            raise StateError(f"{self.path} is {error}") from error

    @contextmanager
    def _or_state_error(self, done: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: a path that no file can have
            raise StateError(f"{self.path} cannot be {done}: {error}") from error

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)


def _write(path: Path, text: str, *, like: Path) -> None:
    with path.open("wb") as file:
        with suppress(FileNotFoundError):
            # Before anything is written: who may not read the old file must not read the new one.
            _set_mode(file.fileno(), S_IMODE(like.stat().st_mode))
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _set_mode(file: int, mode: int) -> None:
    # Some file systems have the same mode for all files and refuse to set any.
    if S_IMODE(os.fstat(file).st_mode) != mode:
        os.fchmod(file, mode)


def _sync_folder(path: Path) -> None:
    """Make the new name last: after a power cut the old file would let a circulation be sent again."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class _Once:
    """One save, by whichever thread comes first; the other waits for it."""

    def __init__(self, journal: StateFile, state: State) -> None:
        self._journal = journal
        self._state = state
        self._lock = Lock()
        self._begun = False

    def save(self) -> None:
        """Save, unless that was done."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._journal.save(self._state)
