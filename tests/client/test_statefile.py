"""A state file in use: whatever is wrong with it is a StateError or in the report, and nothing delivered is lost."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fanout_guard.client import Progress, Rules, State, StateError, StateFile, StopReason, circulate, circulate_async
from tests.client.conftest import Circulate
from tests.client.model_server import ModelServer
from tests.client.serving import publishing_api, serving

DOCUMENT = {"document_id": "d-1"}
SITES = [f"Site{number}" for number in range(1200)]


class Recorder:
    """An API that delivers everything, and calls ``meanwhile`` with the number of each request."""

    def __init__(self, meanwhile: Callable[[int], object] = lambda _: None) -> None:
        self.delivered: Counter[str] = Counter()
        self.requests = 0
        self._meanwhile = meanwhile
        self.app = Starlette(routes=[Route("/", self._circulate, methods=["POST"])])

    async def _circulate(self, request: Request) -> JSONResponse:
        self.requests += 1
        self.delivered.update((await request.json())["target_sites"])
        self._meanwhile(self.requests)
        return JSONResponse({})


def in_the_way(path: Path) -> Path:
    """What keeps the state from being written: a folder of the name that the new file needs."""
    return path.with_name(path.name + ".new")


def test_an_answer_that_cannot_be_saved_is_in_the_report(client: Circulate, tmp_path: Path) -> None:
    """A full disk must not cost the knowledge of what was delivered, nor let anything be sent again."""
    path = tmp_path / "d-1.json"
    api = Recorder(lambda request: in_the_way(path).mkdir() if request == 2 else None)
    with serving(api.app) as url:
        report = client(url, DOCUMENT, SITES, state=StateFile(path))
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.STATE_NOT_SAVED
        assert str(path) in report.stopped.detail
        assert (report.delivered, report.not_sent, report.unknown) == (tuple(SITES[:600]), tuple(SITES[600:]), ())

        in_the_way(path).rmdir()
        later = client(url, DOCUMENT, SITES, state=StateFile(path))
    assert later.unknown == tuple(SITES[300:600])  # the file knows only that it was sent
    assert later.not_sent == ()
    assert api.delivered == Counter(SITES)


def test_what_cannot_be_put_on_record_is_not_sent(client: Circulate, tmp_path: Path) -> None:
    """The request would leave without its doubt on record; a later call goes on as if nothing had been."""
    path, api = tmp_path / "d-1.json", Recorder()

    def fill_the_disk(progress: Progress) -> None:
        if progress.delivered == 300:
            in_the_way(path).mkdir()

    with serving(api.app) as url:
        report = client(url, DOCUMENT, SITES, state=StateFile(path), progress=fill_the_disk)
        assert report.stopped is not None
        assert report.stopped.reason is StopReason.STATE_NOT_SAVED
        assert (report.delivered, report.unknown, api.requests) == (tuple(SITES[:300]), (), 1)

        in_the_way(path).rmdir()
        assert client(url, DOCUMENT, SITES, state=StateFile(path)).complete
    assert api.delivered == Counter(SITES)


def test_a_refusal_is_still_told_where_its_state_cannot_be_saved(client: Circulate, tmp_path: Path) -> None:
    """Two things went wrong, and a person has to put both right."""
    path = tmp_path / "d-1.json"

    async def refuse(_: Request) -> JSONResponse:
        in_the_way(path).mkdir()
        return JSONResponse({}, 401)

    with serving(Starlette(routes=[Route("/", refuse, methods=["POST"])])) as url:
        report = client(url, DOCUMENT, ["A"], state=StateFile(path))
    assert report.stopped is not None
    assert (report.stopped.reason, report.stopped.status) == (StopReason.STATE_NOT_SAVED, 401)
    assert "refused" in report.stopped.detail
    assert report.not_sent == ("A",)


def test_a_file_that_can_never_be_written_is_an_error_before_anything_is_sent(
    client: Circulate, tmp_path: Path
) -> None:
    """There is nothing to report yet."""
    path, api = tmp_path / "d-1.json", Recorder()
    in_the_way(path).mkdir()
    with serving(api.app) as url, pytest.raises(StateError, match=r"d-1\.json cannot be written"):
        client(url, DOCUMENT, SITES, state=StateFile(path))
    assert api.requests == 0


@pytest.mark.parametrize("name", [".", "missing/s", "x" * 300, "x" * 251, "a\0b", "locked"])
def test_a_path_that_cannot_hold_a_state_is_a_state_error(tmp_path: Path, name: str) -> None:
    """Whoever catches StateError, as documented, must catch every way in which a file cannot be used."""
    (tmp_path / "locked.lock").mkdir()
    with pytest.raises(StateError, match="cannot be"):  # noqa: SIM117 - some when opened, some when entered
        with StateFile(tmp_path / name) as journal:
            journal.save(State(document="d", run="r"))


def test_the_with_of_the_docs_holds_the_file_for_the_circulations_inside(client: Circulate, tmp_path: Path) -> None:
    """Look, circulate, look again, and nobody else in between."""
    server, path = ModelServer(document=None), tmp_path / "d-1.json"
    with serving(publishing_api(server)) as url:
        target = f"{url}/circulate-document"
        with StateFile(path) as journal:
            client(target, DOCUMENT, SITES[:100], state=journal)
            assert journal.state is not None
            assert len(journal.state.delivered) == 100
            with pytest.raises(StateError, match="in use"):
                client(target, DOCUMENT, SITES, state=StateFile(path))
            assert client(target, DOCUMENT, SITES, state=journal).complete
        with StateFile(path) as journal:
            assert journal.state is not None
            assert len(journal.state.delivered) == 1200
    assert server.delivered == Counter(SITES)


async def test_two_circulations_inside_one_with_do_not_share_its_state(tmp_path: Path) -> None:
    """Both would send what neither has on record yet."""
    api = Recorder(lambda _: time.sleep(0.2))
    with serving(api.app) as url, StateFile(tmp_path / "s") as journal:
        calls = [circulate_async(url, DOCUMENT, SITES, state=journal) for _ in range(2)]
        first, second = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, StateError), first
    assert api.delivered == Counter(SITES)


def test_a_state_that_is_refused_leaves_the_file_free(tmp_path: Path) -> None:
    """The next process must be told what is wrong, not that the file is in use."""
    journal = StateFile(tmp_path / "s")
    (tmp_path / "s").write_text("{}")
    for _ in range(2):
        with pytest.raises(StateError, match="not a state"):
            circulate("http://127.0.0.1:1", DOCUMENT, ["A"], state=journal, rules=Rules(attempts=1))


class Watched(StateFile):
    """Notes the threads that write, and calls ``before`` with each state."""

    def __init__(self, path: Path, before: Callable[[State], object] = lambda _: None) -> None:
        self.threads: set[threading.Thread] = set()
        self._before = before
        super().__init__(path)

    def save(self, state: State) -> None:
        """Write it, after a while."""
        self.threads.add(threading.current_thread())
        self._before(state)
        super().save(state)


async def test_writing_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    """A disk that takes its time would stop everything else that the process does."""
    with serving(Recorder().app) as url:
        journal = Watched(tmp_path / "s")
        assert (await circulate_async(url, DOCUMENT, SITES, state=journal)).complete
    assert threading.current_thread() not in journal.threads


async def test_cancelling_while_an_answer_is_written_does_not_lose_it(tmp_path: Path) -> None:
    """The file is written to its end before its lock is given up, and says that the site is delivered."""
    loop = asyncio.get_running_loop()

    def cancel(state: State) -> None:
        if state.delivered:
            loop.call_soon_threadsafe(task.cancel)
            time.sleep(0.2)

    path = tmp_path / "s"
    with serving(Recorder().app) as url:
        task = asyncio.create_task(circulate_async(url, DOCUMENT, ["A"], state=Watched(path, cancel)))
        with pytest.raises(asyncio.CancelledError):
            await task
    with StateFile(path) as journal:
        assert journal.state is not None
        assert (journal.state.delivered, journal.state.in_doubt) == (('"A"',), ())


def test_a_state_behind_a_link_is_kept_where_the_link_leads(client: Circulate, tmp_path: Path) -> None:
    """Replaced by a file, the link would come back with the next container, and an old state with it."""
    kept, link = tmp_path / "volume.json", tmp_path / "d-1.json"
    link.symlink_to(kept)
    with serving(publishing_api(ModelServer())) as url:
        report = client(f"{url}/circulate-document", DOCUMENT, SITES[:200], state=StateFile(link))
    assert report.complete
    assert link.is_symlink()
    assert len(json.loads(kept.read_bytes())["delivered"]) == 200
    with StateFile(kept), pytest.raises(StateError, match="in use by another circulation"), StateFile(link):
        pass


def test_a_state_stays_in_its_folder_where_the_process_leaves_it(
    client: Circulate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a state in each of two folders would let sites be sent again from either."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    state = StateFile("d-1.json")
    with serving(publishing_api(ModelServer(document=None))) as url:
        report = client(
            f"{url}/circulate-document",
            DOCUMENT,
            SITES[:600],
            state=state,
            progress=lambda _: os.chdir(tmp_path / "elsewhere"),
        )
    assert report.complete
    assert os.listdir(tmp_path / "elsewhere") == []
    assert len(json.loads((tmp_path / "d-1.json").read_bytes())["delivered"]) == 600


def test_a_file_that_only_its_owner_may_read_stays_so(tmp_path: Path) -> None:
    """Whose sites a document went to can be confidential, and every answer writes the file anew."""
    path = tmp_path / "d-1.json"
    journal = StateFile(path)
    journal.save(State(document="d", run="r"))
    path.chmod(0o600)
    journal.save(State(document="d", run="r", delivered=("Site1",)))
    assert path.stat().st_mode & 0o777 == 0o600
