"""``fanout-guard top``: a live picture for people, one picture for scripts."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from socketserver import BaseRequestHandler, TCPServer
from threading import Thread

import pytest

from fanout_guard import FanoutGuard, Settings
from fanout_guard.cli.deployment import deployment
from fanout_guard.cli.exit import Exit
from fanout_guard.cli.frame import Frame
from fanout_guard.cli.scrape import Scraped, check_address, samples, scrape
from fanout_guard.cli.survey import Standing
from fanout_guard.cli.top import Watcher
from tests.cli.conftest import Run
from tests.cli.servers import command, serving, with_guard
from tests.ports import free_port
from tests.waiting import becomes

METRICS = """\
# TYPE fanout_guard_decisions_total counter
fanout_guard_decisions_total{outcome="admitted",policy=""} 12.0
fanout_guard_decisions_total{outcome="rejected",policy="circulation"} 3.0
fanout_guard_decisions_total{outcome="rejected",policy="circulation",tenant="a,\\"b}"} 4.0
fanout_guard_decisions_total{outcome="rejected",policy="rate-60"} 1e0 1700000000000
fanout_guard_outage 1.0
other_total{outcome="rejected",policy="x"} 5
fanout_guard_decisions_total nonsense
"""


@contextmanager
def metrics(text: str = METRICS, status: int = 200) -> Iterator[str]:
    """An application's metrics at an address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()


@pytest.fixture
def _in_flight(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FANOUT_GUARD_MAX_INFLIGHT", "500")
    monkeypatch.setenv("FANOUT_GUARD_GLOBAL_MAX_INFLIGHT", "1000")
    monkeypatch.setenv("FANOUT_GUARD_RATE", "1000/minute")

    async def circulate(guard: FanoutGuard) -> None:
        for tenant, count in (("few", 3), ("many", 200), ("idle", 250)):
            decision = await guard.admit(tenant=tenant, document="d", sites=[str(site) for site in range(count)])
            if tenant == "idle":
                await guard.release(tenant, decision.lease_id or "")

    with_guard(circulate)


@pytest.mark.usefixtures("_in_flight")
def test_tenants_with_most_in_flight_come_first(run: Run) -> None:
    """Who holds the capacity now is what one looks for, then who is near a cap."""
    document = run("top", "--json").document
    assert [each["tenant"] for each in document["tenants"]] == ["many", "few", "idle"]
    assert (document["reached"], document["outage"], document["rejections"]) == (True, None, None)
    assert [(len(each["documents"]), each["documents_found"]) for each in document["tenants"]] == [(1, 1)] * 3
    out = run("top", "--once").out
    assert out.index("many") < out.index("few") < out.index("idle")
    assert "200/500  40%" in out
    assert "in flight, all tenants: 203/1000  20%" in out
    assert "250/1000  25% in 60 s" in out
    assert "--metrics URL" in out


@pytest.mark.usefixtures("_in_flight")
def test_a_figure_stands_under_its_own_head(run: Run) -> None:
    """Each policy in one column: a rate beside other caps would be read as several windows."""
    *_, header, many, _, _ = run("top", "--once").out.splitlines()
    shown = {"tenant": "many", "in flight": "200/500  40%", "rate": "200/1000  20% in 60 s", "documents": "1"}
    shown |= {"fullest document": "200/300  67%", "mode": "enforce"}
    starts = [*map(header.index, shown), None]
    cells = [many[start:end].strip() for start, end in pairwise(starts)]
    assert dict(zip(shown, cells, strict=True)) == shown


@pytest.mark.usefixtures("_in_flight")
def test_rejections_come_from_the_applications_metrics(run: Run) -> None:
    """The counters keep none of them: a refusal leaves no trace there."""
    with metrics() as first, metrics() as second:
        document = run("top", "--json", "--metrics", first, "--metrics", second).document
        assert document["rejections"] == {"circulation": 14, "rate-60": 2}
        assert document["workers_in_outage"] == 2
        out = run("top", "--metrics", first).out
    assert "rejections: circulation 7   rate-60 1" in out
    assert "OUTAGE seen by 1 " in out


def test_a_worker_that_is_not_in_an_outage_is_not_counted_as_one(url: str, run: Run) -> None:
    """Every worker has this figure, and an outage that is shown all day long is not looked at when there is one."""
    with metrics(METRICS.replace("outage 1.0", "outage 0.0")) as address:
        document = run("top", "--json", "--metrics", address).document
        assert "OUTAGE" not in run("top", "--metrics", address).out
    assert document["workers_in_outage"] == 0


@pytest.mark.usefixtures("_in_flight")
async def test_the_pace_of_rejections_is_told_from_the_second_picture_on() -> None:
    """Totals since the workers started say little about now; one that was restarted begins anew."""
    with metrics() as address:
        async with deployment(Settings.from_env()) as reached:
            watcher = Watcher(reached, [address, address])
            assert (await watcher.look()).per_second is None
            watcher._metrics = [address]
            frame = await watcher.look()
            assert frame.per_second == {"circulation": 0.0, "rate-60": 0.0}
            assert "circulation 7 (0.0/s)" in frame.lines()[1]
            watcher._metrics = [address, address]
            watcher._scraped_s -= 700.0
            assert (await watcher.look()).per_second == pytest.approx(
                {"circulation": 0.01, "rate-60": 1 / 700}, rel=0.1
            )


@pytest.mark.usefixtures("_in_flight")
def test_metrics_that_do_not_answer_leave_the_rest_to_see(run: Run) -> None:
    """And the status says that something is missing."""
    with metrics(status=500) as failing:
        answer = run("top", "--once", "--metrics", f"http://127.0.0.1:{free_port()}/metrics", "--metrics", failing)
    assert answer.code == 3
    assert "2 of the addresses did not answer" in answer.out
    assert "rejections: unknown" in answer.out
    assert "many" in answer.out
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "<html>", "other_total 5\n", "fanout_guard_decisions_total nonsense\n"])
def test_an_answer_without_the_guards_metrics_is_none(text: str, url: str, run: Run) -> None:
    """Every family exists from the start: another page is no application that has rejected nothing."""
    with metrics(text) as address:
        answer = run("top", "--json", "--metrics", address)
    assert (answer.code, answer.document["metrics_silent"]) == (3, 1)


def test_an_answer_in_another_protocol_is_none(url: str, run: Run) -> None:
    """The port may be some other server's."""

    class Server(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"-ERR unknown command\r\n")

    with TCPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.handle_request, daemon=True).start()
        answer = run("top", "--json", "--metrics", f"http://127.0.0.1:{server.server_address[1]}/metrics")
    assert (answer.code, answer.document["metrics_silent"]) == (3, 1)


def test_an_answer_without_an_end_is_none(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of events, say: each part of it comes in time, and Ctrl-C would wait for the last one."""
    monkeypatch.setattr("fanout_guard.cli.scrape.WAIT_S", 0.5)

    class Stream(BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with suppress(OSError):  # until the reader has gone
                for _ in range(1000):
                    self.request.sendall(b"fanout_guard_outage 0\n")
                    time.sleep(0.01)

    with TCPServer(("127.0.0.1", 0), Stream) as server:
        Thread(target=server.handle_request, daemon=True).start()
        answer = run("top", "--json", "--metrics", f"http://127.0.0.1:{server.server_address[1]}/events")
    assert (answer.code, answer.document["metrics_silent"]) == (3, 1)


def test_one_tenant_is_no_plural(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tenant that somebody tries is alone."""
    monkeypatch.setenv("FANOUT_GUARD_TENANT__acme__MAX_SITES", "5")
    assert run("top", "--once").out.splitlines()[0].endswith("   1 tenant")


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e999"])
def test_a_figure_that_is_no_number_is_passed_over(value: str, url: str, run: Run) -> None:
    """The text format has them, and the rest is right."""
    odd = f'fanout_guard_decisions_total{{outcome="rejected",policy="document"}} {value}\n'
    with metrics(METRICS + odd) as address:
        answer = run("top", "--json", "--metrics", address)
    assert (answer.code, answer.document["rejections"]) == (0, {"circulation": 7, "rate-60": 1})


@pytest.mark.parametrize(
    "address",
    ["", "file:///etc/passwd", "ftp://h/", "http://", "http://u:hunter22@h/", "h:80", "http://[x/", "http://a b/",
     "http://h/a b", "http://h:65536/", "http://h:hunter22/"],
)  # fmt: skip
def test_an_address_that_is_none_is_status_2(address: str, url: str, run: Run) -> None:
    """A file is not read because it was called metrics, and a password is not repeated."""
    answer = run("top", "--metrics", address)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "hunter22" not in answer.err
    with pytest.raises(ValueError):
        check_address(address)


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "x", ""])
def test_an_interval_that_is_none_is_status_2(interval: str, url: str, run: Run) -> None:
    """It would load the server without a pause."""
    assert run("top", f"--interval={interval}").code == 2


@pytest.mark.parametrize("labels", ["a" * 1_000_000, 'a="' * 300_000, 'a="\\\\' * 200_000, "} " * 500_000])
def test_hostile_metrics_are_read_in_linear_time(labels: str) -> None:
    """Whatever answers at that address, the picture comes, and Ctrl-C ends it."""
    began = time.process_time()
    list(samples(f"fanout_guard_outage{{{labels}}} 1"))
    assert time.process_time() - began < 5


def test_only_this_products_samples_are_read() -> None:
    """Labels may hold any character."""
    found = list(samples(METRICS))
    assert [(name, value) for name, _, value in found][-2:] == [
        ("fanout_guard_decisions_total", 1.0),
        ("fanout_guard_outage", 1.0),
    ]
    assert found[2][1] == {"outcome": "rejected", "policy": "circulation", "tenant": 'a,\\"b}'}
    assert scrape([]) == Scraped()


@pytest.mark.usefixtures("_in_flight")
async def test_known_tenants_are_looked_at_without_a_walk_over_all_keys(url: str) -> None:
    """A picture every two seconds would be a walk over millions of keys every two seconds."""
    async with deployment(Settings.from_env()) as reached:
        watcher = Watcher(reached, ())
        await watcher.look()
        await asyncio.to_thread(command, url, "CONFIG", "RESETSTAT")
        assert len((await watcher.look()).tenants) == 3
    stats = await asyncio.to_thread(command, url, "INFO", "commandstats")
    assert b"cmdstat_eval" in stats
    assert b"cmdstat_scan:" not in stats


def test_one_picture_of_an_outage_is_status_3(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes away meanwhile has answered nothing; an empty table would say that all is well."""

    async def look(_: Watcher) -> Frame:
        return Frame(outage="timeout")

    monkeypatch.setattr(Watcher, "look", look)
    for how in ("--once", "--json"):
        answer = run("top", how)
        assert (answer.code, answer.out, answer.err.count("\n")) == (3, "", 1)


def test_tenants_that_have_no_room_are_counted(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A screen that shows five of eight must not look as if there were five."""
    every = [Standing(f"name-{number}", "enforce", {}, [], 0) for number in range(8)]
    pictures = iter([Frame(every), Frame(every[:5])])

    async def look(_: Watcher) -> Frame:
        try:
            return next(pictures)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(Watcher, "look", look)
    monkeypatch.setattr("signal.signal", lambda *_: None)  # they are this process's
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for name, value in {"TERM": "dumb", "LINES": "13", "COLUMNS": "120"}.items():
        monkeypatch.setenv(name, value)
    answer = run("top", "--interval", "0.01")
    first, second, _ = answer.out.split("Ctrl-C ends\n")
    assert (answer.code, first.count("name-"), first.endswith("and 3 more; ")) == (0, 5, True)
    assert (second.count("name-"), "more" in second) == (5, False)


@pytest.mark.usefixtures("_in_flight")
async def test_an_outage_keeps_the_last_figures_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who watches an incident must not lose the picture, nor have to start again."""
    with serving() as place:
        monkeypatch.setenv("FANOUT_GUARD_REDIS_URL", f"redis://{place}")
        async with deployment(Settings.from_env()) as reached:
            watcher = Watcher(reached, ())
            await reached.guard.admit(tenant="acme", document="d", sites=["a"])
            before = await watcher.look()
            assert before.outage is None
            reached.counters.give_up("timeout")
            during = await watcher.look()
            assert during.outage == "timeout"
            assert [each.tenant for each in during.tenants] == ["acme"]
            assert "OUT OF REACH (timeout)" in during.lines()[0]
            assert during.members()["reached"] is False

            async def outage() -> str | None:
                return (await watcher.look()).outage

            await becomes(None, outage)


PLAIN = "import fanout_guard.cli.top as top; top.find_spec = lambda name: None"
IN_BACKGROUND = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


@contextmanager
def killed_at_last(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """One that goes on regardless would be waited for past the time limit of a test."""
    try:
        yield
    finally:
        process.kill()


def test_one_picture_that_is_interrupted_is_not_done(url: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script must not take nothing for an answer; only the live picture has no other end."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fanout_guard.cli.top.survey", interrupted)
    assert run("top", "--json") == (Exit.INTERRUPTED, "", "")


@pytest.mark.usefixtures("_in_flight")
@pytest.mark.parametrize("before", ["pass", PLAIN, IN_BACKGROUND], ids=["rich", "plain", "background"])
@pytest.mark.parametrize("columns", ["120", "30"])
@pytest.mark.parametrize("term", ["xterm", "dumb"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_is_live_until_it_is_ended(before: str, columns: str, term: str, end: signal.Signals) -> None:
    """On a terminal it redraws itself, on a narrow or dumb one too; leaving it is no failure and shows the cursor.

    Also where a shell or a make started it with SIGINT ignored: the screen says that Ctrl-C ends.
    """
    code = f"{before}; from fanout_guard.cli import main; raise SystemExit(main(['top', '--interval', '0.1']))"
    terminal, its_end = pty.openpty()
    environ = os.environ | {"TERM": term, "LINES": "30", "COLUMNS": columns}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=its_end, stdout=its_end, stderr=subprocess.PIPE, env=environ
    )
    with process, killed_at_last(process):
        os.close(its_end)
        seen = b""
        while seen.count(b"counters: reached") < 3:
            seen += os.read(terminal, 65536)
        process.send_signal(end)
        with suppress(OSError):  # the terminal is closed when the process has ended
            while more := os.read(terminal, 65536):
                seen += more
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
    os.close(terminal)
    assert b"many" in seen
    assert b"200/500" in seen
    assert seen.rfind(b"\x1b[?25h") >= seen.rfind(b"\x1b[?25l")
    assert (b"\x1b" in seen) == (term == "xterm")


@pytest.mark.usefixtures("_in_flight")
def test_before_the_first_picture_it_tells_what_it_does() -> None:
    """A server far away, with many tenants, would leave nothing but an empty screen for a minute."""
    code = "from fanout_guard.cli import main, output; output.TELL_AFTER_S = 0; raise SystemExit(main(['top'])) "
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=its_end, stdout=its_end, stderr=its_end, env=os.environ | {"TERM": "xterm"}
    )
    with process, killed_at_last(process):
        os.close(its_end)
        seen = b""
        while b"counters: reached" not in seen:
            seen += os.read(terminal, 65536)
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is closed when the process has ended
            while os.read(terminal, 65536):
                pass
        assert process.wait(20) == 0
    os.close(terminal)
    assert seen.index(b"reaching the counters") < seen.index(b"looking at all tenants") < seen.index(b"\x1b")


@pytest.mark.parametrize("command", [("usage",), ("leases", "acme"), ("top", "--once")], ids=" ".join)
def test_who_waits_at_a_terminal_is_told_for_what(
    command: tuple[str, ...], url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other commands wait as long; files and pipes get no more than before."""
    monkeypatch.setattr("fanout_guard.cli.output.TELL_AFTER_S", 0)
    assert run(*command).err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run(*command).err.startswith("fanout-guard: reaching the counters …\nfanout-guard: ")


@pytest.mark.usefixtures("_in_flight")
def test_a_process_that_is_not_watched_prints_one_picture() -> None:
    """``fanout-guard top | head`` ends."""
    done = subprocess.run(
        [sys.executable, "-m", "fanout_guard", "top", "--json"], capture_output=True, check=False, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["tenants"][0]["tenant"] == "many"
