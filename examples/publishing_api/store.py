"""The documents that the API keeps, in SQLite; every worker opens the same file."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
import threading
from dataclasses import dataclass

SCHEMA = """
CREATE TABLE IF NOT EXISTS documents (
    tenant TEXT NOT NULL,
    document_id TEXT NOT NULL,
    headline TEXT NOT NULL,
    sites INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, document_id)
)
"""
SAVE = """
INSERT INTO documents VALUES (?, ?, ?, 0)
ON CONFLICT (tenant, document_id) DO UPDATE SET headline = excluded.headline
"""
DELIVERED = "UPDATE documents SET sites = sites + ? WHERE tenant = ? AND document_id = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of one tenant, as the client sent it."""

    tenant: str
    id: str
    headline: str


class Store:
    """SQLite behind a thread, so that a slow disk never stops the event loop."""

    def __init__(self, path: str) -> None:
        # SQLite does not wait its timeout for a change of the journal mode: two workers that start together would
        # meet "database is locked", and uvicorn stops all of them where one fails to start.
        with open(f"{path}-setup", "w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            self._connection = _opened(path)
        self._lock = threading.Lock()

    async def save(self, document: Document) -> None:
        """Keep the document, or its new headline."""
        await self._run(SAVE, document.tenant, document.id, document.headline)

    async def delivered(self, document: Document, deliveries: int) -> None:
        """Add to the count of deliveries of a document."""
        await self._run(DELIVERED, deliveries, document.tenant, document.id)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    async def _run(self, statement: str, *values: object) -> None:
        def locked() -> None:
            with self._lock:
                self._connection.execute(statement, values)

        await asyncio.to_thread(locked)


def _opened(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(SCHEMA)
    return connection
