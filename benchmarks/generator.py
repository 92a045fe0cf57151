"""Runs a plan through Locust in a process of its own, and reads what that writes down while it runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from msgspec import ValidationError
from msgspec.json import Decoder

from benchmarks.plan import Outcome, PhaseEnd, Plan
from examples.publishing_api.servers import free_port, stop

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
RECORDS = Decoder(Outcome | PhaseEnd)
POLL_SECONDS = 0.1
START_SECONDS = 30.0
STOP_SECONDS = 5.0

Record = Outcome | PhaseEnd


class GeneratorFailed(RuntimeError):
    """Raised when Locust does not run the plan to its end; the text is its own last line."""


def generate(
    plan: Plan, host: str, folder: Path, *, started: Callable[[int], None], processes: int = 1
) -> Generator[Record | None, None, None]:
    """Yield what happens while the plan runs, None when nothing did for a moment; ``started`` gets the pid.

    Closing the iterator early ends Locust. The plan that stays in ``folder`` has no values of headers.
    """
    plan.save(folder / "plan.json")
    samples, log = folder / "samples.jsonl", folder / "locust.log"
    samples.write_bytes(b"")
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", host]
    command += ["--plan", str(folder / "plan.json"), "--samples", str(samples), "--only-summary"]
    command += ["--stop-timeout", "30", *in_processes(processes)]
    with log.open("wb") as output:
        # A process group of its own: Ctrl-C is for the command, which ends Locust itself.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0, env=os.environ
        )
    try:
        started(process.pid)
        # the first thing that it tells may be that a document was waited for in vain
        yield from _follow(process, samples, len(plan.phases), patience_s=START_SECONDS + plan.drain_seconds)
    finally:
        try:
            stop(process, STOP_SECONDS)
        finally:
            plan.without_secrets().save(folder / "plan.json")
    if process.returncode not in (0, -15):
        raise GeneratorFailed(f"the load generator ended with status {process.returncode}: {_last_line(log)}")


def _follow(
    process: subprocess.Popen[bytes], samples: Path, phases: int, *, patience_s: float
) -> Iterator[Record | None]:
    rest, ended, begin = b"", 0, time.monotonic()
    with samples.open("rb") as stream:
        while True:
            over = process.poll() is not None
            *lines, rest = (rest + stream.read()).split(b"\n")
            for line in lines:
                record = _decode(line)
                ended += isinstance(record, PhaseEnd)
                yield record
            if over or ended == phases:
                break
            if stream.tell() == 0 and time.monotonic() - begin > patience_s:
                raise GeneratorFailed(f"the load generator did nothing for {patience_s:.0f} s")
            yield None
            time.sleep(POLL_SECONDS)
    if ended < phases:
        process.wait()


def _decode(line: bytes) -> Record:
    try:
        record: Record = RECORDS.decode(line)
    except ValidationError as error:
        raise GeneratorFailed(f"the load generator wrote a line that is no record: {error}") from error
    return record


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line or "error" in line]
    return (errors or lines or ["it said nothing"])[-1]


def in_processes(count: int) -> list[str]:
    """Locust's options for several processes; on a port of their own, so that two runs do not meet on Locust's."""
    if count == 1:
        return []
    port = str(free_port())
    return ["--processes", str(count), "--master-port", port, "--master-bind-port", port]
