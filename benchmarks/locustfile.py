"""The story's client for Locust: circulations at times fixed beforehand, whatever the target does.

``python -m benchmarks sweep`` runs this file with a plan. On its own it works with Locust's options and web
UI: ``locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000 --sites 100,200,300``.

One process sequences the phases (the master, or the only one); every process with users sends its part of
each phase and reports each circulation's end. Latency counts from the *scheduled* time, so a target that
stalls cannot hide it by delaying the client (coordinated omission).
"""

from __future__ import annotations

import logging
import sys
import time
import zlib
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import Any

import gevent
import locust.stats
import msgspec
from gevent.queue import Empty, Queue
from locust import FastHttpUser, LoadTestShape, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastResponse
from locust.env import Environment
from locust.exception import LocustError
from locust.runners import STATE_INIT, MasterRunner, WorkerRunner

# Locust loads this file by its path, with only its own folder importable.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.answers import classify
from benchmarks.options import BadUsage, positive, read_names, whole
from benchmarks.plan import Outcome, Phase, Plan
from benchmarks.sequencer import Sequencer

CLOCK = time.time() - time.perf_counter()
EXAMPLE = "publishing-api-example"
TABLES_AFTER, REPORTS_WITHIN = 2, 10  # ticks of a second


def now() -> float:
    """Seconds since the epoch by a clock that never steps within the run."""
    return CLOCK + time.perf_counter()


# Locust rounds 104.9 ms to 100 and 105.1 to 110 before it takes percentiles; a knee does not survive that.
locust.stats.bucket_response_time = lambda milliseconds: round(milliseconds, 1)  # type: ignore[assignment,return-value]


class Arrival(msgspec.Struct, frozen=True):
    """One circulation to send at ``due``."""

    phase: int
    index: int
    due: float


class Sender:
    """One process's part: what it has to send, and the plan that says how."""

    def __init__(self) -> None:
        self.plan = Plan(phases=())
        self.inbox: Queue[Arrival] = Queue()

    def learn(self, msg: Any, **_: Any) -> None:
        """Take the plan; it comes from the sequencing process, so a remote worker needs no file."""
        self.plan = msgspec.json.decode(msg.data, type=Plan)

    def accept(self, environment: Environment, msg: Any, **_: Any) -> None:
        """Take this process's share of a phase."""
        runner: Any = environment.runner
        share = runner.worker_index % msg.data["processes"] if isinstance(runner, WorkerRunner) else 0
        for number, (phase, index, due) in enumerate(msg.data["arrivals"]):
            if number % msg.data["processes"] == share:
                self.inbox.put(Arrival(phase, index, due))

    def drop(self, **_: Any) -> None:
        """Forget what has not been sent."""
        while not self.inbox.empty():
            self.inbox.get()


class Undecodable(OSError):
    """Raised for a body that is not in its ``Content-Encoding``; of what reading raises, Locust expects little more."""


class Response(FastResponse):
    """An answer; whatever keeps its body from being decoded is a failure, and ends no greenlet."""

    def _content(self) -> Any:
        try:
            return super()._content()  # type: ignore[no-untyped-call]
        except Exception as error:
            if isinstance(error, FAILURE_EXCEPTIONS) and not isinstance(error, zlib.error):
                raise
            raise Undecodable(str(error)) from error


class Publisher(FastHttpUser):
    """The client of the story; one user is enough, as it sends each circulation aside when its time comes."""

    host = "http://127.0.0.1:8000"
    concurrency = 2000  # Locust's 10 would queue the eleventh circulation in flight, unseen
    network_timeout = 120.0
    connection_timeout = 10.0
    insecure = False  # Locust's default takes any certificate, and a header may carry a token

    def on_start(self) -> None:
        """Follow no redirect: a page for logging in answers 200, and fast, and no site has the document.

        Once, as Locust's ``allow_redirects`` of one request holds for all that are in flight beside it. Take any
        status, too: of those it does not expect, Locust makes a text, and not every body is one.
        """
        self.client.client.response_type = Response  # type: ignore[misc]
        self.client.client.redirect_response_codes = frozenset()  # type: ignore[misc]
        self.client.client.valid_response_codes = frozenset(range(1000))  # type: ignore[misc]

    @task
    def dispatch(self) -> None:
        """Send the next circulation when it is due, without waiting for its answer."""
        try:
            arrival = sender.inbox.get(timeout=0.5)
        except Empty:
            return
        gevent.sleep(max(arrival.due - now(), 0))
        gevent.spawn(self.circulate, arrival)

    def circulate(self, arrival: Arrival) -> None:
        """Send one circulation, and report how it ended."""
        plan, phase = sender.plan, sender.plan.phases[arrival.phase]
        path, headers, body = plan.request(phase, arrival.index)
        lag_ms = (now() - arrival.due) * 1000
        name = f"{phase.name} {phase.sites} sites"
        going = {"run": plan.run, "phase": arrival.phase, "index": arrival.index, "lag_ms": lag_ms}
        self.environment.runner.send_message("circulation-sent", going)
        with self.client.post(path, data=body.decode(), headers=headers, name=name, catch_response=True) as response:
            latency_ms = (now() - arrival.due) * 1000
            lowered = {key.lower(): value for key, value in (response.headers or {}).items()}
            error = response.request_meta["exception"]
            broken = error is not None
            answer = b"" if broken else response.content or b""
            result, detail = classify(response.status_code, lowered, answer, asked=phase.sites)
            if not response.status_code:
                detail = f"no answer: {reason(response.error)}"
            if broken and result == "ok":
                why = "is not in its content-encoding" if isinstance(error, Undecodable) else "broke off"
                result, detail = "failed", f"status {response.status_code}, and the answer {why}"
            if phase.refused and result == "ok":
                result, detail = "failed", "admitted although over the cap"
            response.request_meta["response_time"] = latency_ms
            if result == "failed":
                response.failure(LocustError(detail))
            else:
                response.request_meta["name"] += "" if result == "ok" else " (refused)"
                response.success()
        outcome = Outcome(
            phase=arrival.phase,
            index=arrival.index,
            scheduled=arrival.due,
            result=result,
            latency_ms=latency_ms,
            lag_ms=lag_ms,
            status=response.status_code,
            detail=detail,
        )
        ended = {"run": plan.run, "outcome": msgspec.json.encode(outcome).decode()}
        self.environment.runner.send_message("circulation-ended", ended)


def reason(error: BaseException | None) -> str:
    """An error in words; of a time-out the client says no more than that it tried once."""
    cause = getattr(error, "original", error)
    return str(cause) or type(cause).__name__


class Circulations(LoadTestShape):
    """One user per process until every phase is over, and Locust's own tables have it all.

    Locust's worker processes report every three seconds, and it writes its tables every second; at the end it waits
    for neither.
    """

    _over_for, _whole_for = 0, 0  # ticks

    def tick(self) -> tuple[int, float] | None:
        """Locust asks once a second, and once before the test starts; None ends the test."""
        started = self.runner is not None and self.runner.state != STATE_INIT
        over = started and (not sequencers or sequencers[-1].done)
        whole = over and (not sequencers or sequencers[-1].told)
        self._over_for = self._over_for + 1 if over else 0
        self._whole_for = self._whole_for + 1 if whole else 0
        if self._whole_for > TABLES_AFTER or self._over_for > REPORTS_WITHIN:
            return None
        processes = max(getattr(self.runner, "worker_count", 1), 1)
        return processes, 100.0


sender = Sender()
sequencers: list[Sequencer] = []


def add_options(parser: LocustArgumentParser) -> None:
    """Options of this file beside Locust's own; they show in the web UI too."""
    group = parser.add_argument_group("Circulations")
    group.add_argument("--plan", default="", help="a plan as JSON; overrides the other options here")
    group.add_argument("--samples", default="", help="file for one JSON line per circulation")
    group.add_argument("--sites", default="100,200,300,400,500", help="fan-outs to send, in this order")
    group.add_argument("--documents", type=int, default=7, help="circulations per fan-out")
    group.add_argument("--rate", type=float, default=1.5, help="circulations a second")
    group.add_argument("--tenant", default="default", help="tenant to publish as")
    group.add_argument("--site-names", default="", help="file of site names; needed unless the host is the example")


def on_init(environment: Environment, **_: Any) -> None:
    """Connect the processes with each other."""
    runner = environment.runner
    if runner is None:
        return
    if not isinstance(runner, MasterRunner):
        runner.register_message("plan", sender.learn)
        runner.register_message("circulations", sender.accept)
        runner.register_message("drop-circulations", sender.drop)
    if not isinstance(runner, WorkerRunner):
        runner.register_message("circulation-sent", lambda **message: sequencers[-1].sent(**message))
        runner.register_message("circulation-ended", lambda **message: sequencers[-1].record(**message))


def on_test_start(environment: Environment, **_: Any) -> None:
    """Read the plan; the process that sequences begins it."""
    options = environment.parsed_options
    assert options is not None
    if isinstance(environment.runner, WorkerRunner):
        return
    try:
        plan = plan_from(options, host=environment.host or Publisher.host)
    except (ArgumentTypeError, OSError, ValueError, msgspec.MsgspecError) as error:
        logging.error(str(error))
        if environment.web_ui is None:  # there the page is for another try
            environment.process_exit_code = 2
            environment.runner.quit()  # type: ignore[union-attr]
        return
    samples = open(options.samples, "wb") if options.samples else None  # noqa: SIM115 - lives as long as the test
    sequencers.append(Sequencer(environment, plan, samples, now))


def on_test_stop(**_: Any) -> None:
    """Stop sending; the web UI may start another test."""
    if sequencers:
        sequencers[-1].stop()


def on_quitting(environment: Environment, **_: Any) -> None:
    """A run that delivered nothing is no success; failures are for the judgement, not for Locust."""
    if isinstance(environment.runner, WorkerRunner) or environment.process_exit_code is not None:
        return
    finished = bool(sequencers) and sequencers[-1].complete and sequencers[-1].useful()
    environment.process_exit_code = 0 if finished else 4


def plan_from(options: Namespace, *, host: str) -> Plan:
    """The plan file, or one phase for each of ``--sites``; raises before anything is sent."""
    if options.plan:
        return Plan.load(Path(options.plan))
    if not options.site_names and not is_example(host):
        raise BadUsage(f"{host} is not the example API: name the sites to publish to with --site-names")
    documents, rate = whole(str(options.documents)), positive(str(options.rate))
    counts = [whole(text.strip()) for text in options.sites.split(",")]
    plan = Plan(
        phases=tuple(
            Phase(sweep=1, sites=count, documents=documents, rate=rate, tenant=options.tenant) for count in counts
        ),
        run=f"locust-{int(now())}",
        site_names=tuple(read_names(Path(options.site_names)) if options.site_names else ()),
    )
    plan.sites(max(counts))  # more than there are names for is refused now, not while it runs
    return plan


def is_example(host: str) -> bool:
    """Invented names go to the example only: nothing is ever published to sites that may be real."""
    import requests

    try:
        return bool(requests.get(f"{host}/health", timeout=5).json().get("service") == EXAMPLE)
    except (requests.RequestException, ValueError, AttributeError):
        return False


hooks: Any = events  # Locust's hooks are not typed
hooks.init_command_line_parser.add_listener(add_options)
hooks.init.add_listener(on_init)
hooks.test_start.add_listener(on_test_start)
hooks.test_stop.add_listener(on_test_stop)
hooks.quitting.add_listener(on_quitting)
