from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import pytest

from fanout_guard.cli import main
from tests.cli.servers import command, serving
from tests.waiting import until


class Answer(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON that was printed."""
        return json.loads(self.out)


Run: TypeAlias = Callable[..., Answer]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command in this process."""

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main(arguments)
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def _place() -> Iterator[str]:
    with serving() as place:
        yield place


@pytest.fixture
def url(_place: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Valkey server with nothing in it, which the environment names."""
    url = f"redis://{_place}"
    command(url, "FLUSHALL")
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url)
    return url


@pytest.fixture(scope="session")
def _cluster_place() -> Iterator[str]:
    with serving("--cluster-enabled", "yes") as place:
        command(f"redis://{place}", "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        until(lambda: b"cluster_state:ok" in command(f"redis://{place}", "CLUSTER", "INFO"))
        yield place


@pytest.fixture
def cluster_url(_cluster_place: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cluster of one with nothing in it, which the environment names."""
    command(f"redis://{_cluster_place}", "FLUSHALL")
    url = f"redis+cluster://{_cluster_place}"
    monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", url)
    return url
