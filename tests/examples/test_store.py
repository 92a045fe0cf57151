"""The documents of the example API, in SQLite."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from examples.publishing_api.store import Store

WORKERS = 8


def test_workers_that_start_together_all_open_the_database(tmp_path: Path) -> None:
    """One that failed to start would make uvicorn stop the others, which answer already."""
    for turn in range(50):
        together = Barrier(WORKERS)

        def opened(path: str = str(tmp_path / f"{turn}.sqlite3"), together: Barrier = together) -> Store:
            together.wait()
            return Store(path)

        with ThreadPoolExecutor(WORKERS) as workers:
            stores = [workers.submit(opened) for _ in range(WORKERS)]
        for store in stores:
            store.result().close()
