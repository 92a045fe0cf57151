"""The locustfile under a real Locust: on its own, in several processes, with its web UI, and with a plan."""

from __future__ import annotations

import csv
import json
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from urllib.parse import urlencode
from urllib.request import urlopen

import psutil
import pytest

from benchmarks.generator import LOCUSTFILE, generate, in_processes
from benchmarks.plan import Outcome, Phase, Plan
from examples.publishing_api.servers import Servers, Setup, free_port, serve

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def example() -> Iterator[Servers]:
    with serve(Setup(workers=1, slots=10, guarded=False, redis=False)) as servers:
        yield servers


def locust(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Locust as its users start it, from any folder."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *arguments]
    return subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280)


def samples_of(path: Path) -> list[Outcome]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        Outcome(**{name: value for name, value in line.items() if name != "type"})
        for line in lines
        if line["type"] == "document"
    ]


@contextmanager
def answering(
    seconds_by_number: dict[int, float],
    paths: list[str] | None = None,
    redirect: int | None = None,
    certificate: Path | None = None,
) -> Iterator[str]:
    """A server that handles one request after the other and stalls on some; it reaches no site.

    ``paths`` takes the path of each request. With ``redirect``, that status sends each circulation to a page for
    logging in, which answers anything with 200. With ``certificate`` (and its key), it speaks TLS.
    """
    lock, handled = threading.Lock(), [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            with lock:
                if paths is not None:
                    paths.append(self.path)
                handled[0] += 1
                time.sleep(seconds_by_number.get(handled[0], 0.0))
            moved = redirect is not None and self.path != "/login"
            self.send_response(redirect if redirect is not None and moved else 200)
            if moved:
                self.send_header("location", "/login")
            self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def saying(answer: bytes) -> Iterator[str]:
    """A server that says the same to every request, and hangs up."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            length = 0
            while line := self.rfile.readline().strip().lower():
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            self.rfile.read(length)
            self.wfile.write(answer)

    with ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("processes", [1, 2])
def test_plain_locust_sends_every_document_and_its_own_figures_agree(
    processes: int, example: Servers, tmp_path: Path
) -> None:
    """Totals that lack the last seconds, or a share lost between processes, would go unnoticed."""
    before = example.received()["deliveries"]
    options = ["--headless", "--host", example.api_url, "--sites", "3,5", "--documents", "4", "--rate", "10"]
    options += ["--samples", "samples.jsonl", "--csv", "stats"]
    options += in_processes(processes)
    answer = locust(*options, folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    outcomes = samples_of(tmp_path / "samples.jsonl")
    assert sorted(outcome.index for outcome in outcomes) == sorted([*range(-1, 4)] * 2)
    assert {outcome.result for outcome in outcomes} == {"ok"}
    assert example.received()["deliveries"] - before == 5 * (3 + 5)
    with (tmp_path / "stats_stats.csv").open() as stream:
        total = next(row for row in csv.DictReader(stream) if row["Name"] == "Aggregated")
    assert (total["Request Count"], total["Failure Count"]) == ("10", "0")
    slowest = max(outcome.latency_ms for outcome in outcomes)
    assert float(total["Max Response Time"]) == pytest.approx(slowest, abs=0.01)


def test_the_web_ui_runs_it_too(example: Servers, tmp_path: Path) -> None:
    """Locust's own users start it with a browser."""
    options = ["--host", example.api_url, "--sites", "3", "--documents", "2", "--rate", "10", "--autostart"]
    options += ["--autoquit", "0", "--web-host", "127.0.0.1", "--web-port", str(free_port())]
    answer = locust(*options, "--samples", "samples.jsonl", folder=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert len(samples_of(tmp_path / "samples.jsonl")) == 3


def asked(url: str, form: dict[str, str] | None = None) -> dict[str, object]:
    """What the web UI answers its page."""
    data = None if form is None else urlencode(form).encode()
    with urlopen(url, data=data, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def test_the_web_ui_starts_one_test_after_the_other(example: Servers, tmp_path: Path) -> None:
    """The second one sent nothing and ended at once, and one that was stopped went on sending in the next."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--host", example.api_url, "--web-host", "127.0.0.1", "--web-port", str(port)]
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), *options]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def started(name: str, documents: int, sites: str = "3") -> Path:
        form = {"sites": sites, "documents": str(documents), "rate": "10", "samples": name}
        deadline = time.monotonic() + 90
        while True:
            try:
                asked(f"{url}/swarm", form)
                return tmp_path / name
            except OSError:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)

    def over() -> None:
        time.sleep(2.1)  # an answer may be that old
        deadline = time.monotonic() + 90
        while asked(f"{url}/stats/requests")["state"] != "stopped":
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)

    try:
        first = started("first", 2)
        over()
        stopped = started("stopped", 300)
        while not stopped.exists() or stopped.read_bytes().count(b"\n") < 3:
            time.sleep(0.1)
        asked(f"{url}/stop", {})
        over()
        started("refused", 2, sites="x")
        over()
        last = started("last", 4)
        over()
    finally:
        process.terminate()
        process.wait(60)
    for samples, indexes in ((first, (-1, 0, 1)), (last, (-1, 0, 1, 2, 3))):  # in the order in which they were answered
        assert sorted((one.index, one.result) for one in samples_of(samples)) == [(index, "ok") for index in indexes]
    assert process.returncode == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_to_a_success(status: int, tmp_path: Path) -> None:
    """An expired token led to a page for logging in: fast, 200, and no site had the document."""
    names = tmp_path / "names"
    names.write_text("a\nb\n")
    options = ["--headless", "--sites", "2", "--documents", "2", "--rate", "10", "--samples", "samples.jsonl"]
    with answering({}, redirect=status) as host:
        answer = locust(*options, "--host", host, "--site-names", str(names), folder=tmp_path)
    assert answer.returncode == 4, answer.stderr
    told = {(outcome.result, outcome.detail) for outcome in samples_of(tmp_path / "samples.jsonl")}
    assert told == {("failed", f"status {status}")}


def test_a_certificate_is_verified_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ``--header`` holds is a token, as a rule, and it went to whoever answered at the address."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine")
    ours = tmp_path / "ours.pem"
    command = f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ours -keyout {ours} -out certificate"
    more = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([openssl, *command.split(), *more], cwd=tmp_path, check=True, capture_output=True)
    ours.write_text(ours.read_text() + (tmp_path / "certificate").read_text())
    phase = Phase(sweep=1, sites=1, documents=2, rate=10.0, discarded=0)
    received: list[str] = []
    with answering({}, received, certificate=ours) as host:
        plan = Plan(phases=(phase,), site_names=("a",))
        unknown = [r for r in generate(plan, host, tmp_path, started=lambda _: None) if isinstance(r, Outcome)]
        assert [r.result for r in unknown] == ["failed"] * 2
        assert "CERTIFICATE_VERIFY_FAILED" in unknown[0].detail
        assert not received
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
        known = [r for r in generate(plan, host, tmp_path, started=lambda _: None) if isinstance(r, Outcome)]
    assert [r.result for r in known] == ["ok"] * 2


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", "status 200, and the answer broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{", "status 200, and the answer broke off"),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nf\xfcr", "status 500"),
        (b"HTTP/1.1 500 Oops\r\ncontent-encoding: zstd\r\ncontent-length: 1\r\n\r\n{", "status 500"),
        (b"HTTP/1.1 500 Oops\r\ncontent-encoding: br\r\ncontent-length: 1\r\n\r\n{", "status 500"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\n{",
            "status 200, and the answer is not in its content-encoding",
        ),
        (b"", "no answer: connection closed."),
    ],
)
def test_an_answer_that_cannot_be_read_is_no_success_and_no_silence(answer: bytes, detail: str, tmp_path: Path) -> None:
    """A worker that dies in the middle of an answer looked fast; an error page in Latin-1 was waited for."""
    phase = Phase(sweep=1, sites=1, documents=2, rate=10.0, discarded=0)
    with saying(answer) as host:
        plan = Plan(phases=(phase,), site_names=("a",))
        records = list(generate(plan, host, tmp_path, started=lambda _: None))
    assert [(r.result, r.detail) for r in records if isinstance(r, Outcome)] == [("failed", detail)] * 2


def test_a_host_that_refuses_is_no_success(tmp_path: Path) -> None:
    """A pipeline that only looks at the exit code must see that nothing was tested."""
    names = tmp_path / "names"
    names.write_text("a\nb\n")
    options = ["--headless", "--host", "http://127.0.0.1:9", "--sites", "2", "--documents", "2", "--rate", "10"]
    answer = locust(*options, "--site-names", str(names), folder=tmp_path)
    assert answer.returncode == 4, answer.stderr


def test_nothing_is_published_to_invented_sites_of_a_stranger(tmp_path: Path) -> None:
    """Without names only the example gets documents: another API's sites may be real."""
    with answering({}) as host:
        answer = locust("--headless", "--host", host, "--sites", "2", "--documents", "2", folder=tmp_path)
    assert answer.returncode == 2
    assert "--site-names" in answer.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--sites", "2,x"], "'x' is not a whole number"),
        (["--sites", "1,3"], "3 sites are asked for, 2 names are known"),
        (["--rate", "0"], "is not a number above 0"),
        (["--documents", "0"], "'0' is not a whole number"),
        (["--site-names", "/no/such/file"], "/no/such/file: cannot be read"),
        (["--plan", "/no/such/file"], "/no/such/file"),
    ],
)
def test_a_bad_option_ends_the_run_before_it_begins(options: list[str], problem: str, tmp_path: Path) -> None:
    """A pipeline would wait for ever, or take a level that was never sent for one that passed."""
    names = tmp_path / "names"
    names.write_text("a\nb\n")
    with answering({}) as host:
        given = ["--headless", "--host", host, "--sites", "2", "--documents", "1", "--rate", "10"]
        answer = locust(*given, "--site-names", str(names), *options, folder=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert problem in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_stalled_target_cannot_slow_the_arrivals_or_hide_its_stall(tmp_path: Path) -> None:
    """A closed loop would send one slow document and wait: latency counts from when each was due."""
    plan = Plan(phases=(Phase(sweep=1, sites=1, documents=10, rate=10.0, discarded=0),), site_names=("a",))
    with answering({1: 1.5}) as host:
        records = list(generate(plan, host, tmp_path, started=lambda _: None))
    outcomes = sorted((r for r in records if isinstance(r, Outcome)), key=lambda outcome: outcome.index)
    assert len(outcomes) == 10
    for outcome in outcomes:
        assert outcome.latency_ms > 1500 - 100 * outcome.index - 100
    gaps = [b.scheduled - a.scheduled for a, b in pairwise(outcomes)]
    assert gaps == pytest.approx([0.1] * 9, abs=1e-4)


def test_the_documents_id_goes_into_the_path(tmp_path: Path) -> None:
    """Every circulation would else be of one document, and meet its cap."""
    phase = Phase(sweep=1, sites=1, documents=2, rate=10.0, discarded=0)
    plan = Plan(phases=(phase,), site_names=("a",), path="/documents/{document_id}/circulate", body={"to": "{sites}"})
    paths: list[str] = []
    with answering({}, paths) as host:
        list(generate(plan, host, tmp_path, started=lambda _: None))
    assert sorted(paths) == [f"/documents/run-level-1-1-{index}/circulate" for index in (0, 1)]


def test_documents_that_never_end_are_counted(tmp_path: Path) -> None:
    """A run that stops waiting loses the slowest documents first."""
    phase = Phase(sweep=1, sites=1, documents=3, rate=10.0, discarded=0)
    plan = Plan(phases=(phase,), site_names=("a",), drain_seconds=0.5)
    with answering({1: 3.0}) as host:
        records = list(generate(plan, host, tmp_path, started=lambda _: None))
    assert [r.result for r in records if isinstance(r, Outcome)] == ["unfinished"] * 3


def test_a_document_that_was_sent_and_never_answered_counts_as_sent(tmp_path: Path) -> None:
    """The generator kept its schedule: a target that hangs would else pass for a generator that fell behind."""
    phase = Phase(sweep=1, sites=1, documents=3, rate=10.0, discarded=0)
    plan = Plan(phases=(phase,), site_names=("a",), drain_seconds=0.5)
    with answering({2: 3.0}) as host:
        records = list(generate(plan, host, tmp_path, started=lambda _: None))
    outcomes = sorted((r for r in records if isinstance(r, Outcome)), key=lambda outcome: outcome.index)
    assert [outcome.result for outcome in outcomes] == ["ok", "unfinished", "unfinished"]
    assert all(outcome.lag_ms for outcome in outcomes), "how late each was sent is known"


def test_a_level_that_mostly_fails_is_cut_short_and_stays_in_the_figures(tmp_path: Path) -> None:
    """Half an hour of errors tells no more than ten of them."""
    phase = Phase(sweep=1, sites=1, documents=200, rate=20.0, discarded=0)
    plan = Plan(phases=(phase,), site_names=("a",), path="/circulate-document")
    port = free_port()
    records = list(generate(plan, f"http://127.0.0.1:{port}", tmp_path, started=lambda _: None))
    results = [r.result for r in records if isinstance(r, Outcome)]
    assert set(results) == {"failed", "unfinished"}
    assert results.count("unfinished") > 100
    assert len(results) == 200


def test_no_process_of_the_generator_is_left_behind(tmp_path: Path) -> None:
    """It would wait for its master for ever, and disturb what is measured next."""
    phase = Phase(sweep=1, sites=1, documents=2, rate=10.0, discarded=0)
    plan = Plan(phases=(phase,), site_names=("a",))
    started: list[psutil.Process] = []
    with answering({}) as host:
        records = generate(plan, host, tmp_path, started=lambda pid: started.append(psutil.Process(pid)), processes=2)
        results = []
        for record in records:
            started += [child for child in started[0].children() if child not in started]
            results += [record.result] if isinstance(record, Outcome) else []
    assert results == ["ok"] * 2
    assert len(started) >= 3
    assert not psutil.wait_procs(started, timeout=60)[1]
