"""Several uvicorn workers, one page of metrics; the workers are real and one of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from examples.publishing_api.servers import stop
from tests.ports import free_port
from tests.waiting import until


class Workers:
    """Two uvicorn workers that share a directory of metrics."""

    def __init__(self, directory: Path) -> None:
        self._url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "uvicorn", "tests.observe.metered_app:app", "--workers", "2"]
        patience = ("--timeout-worker-healthcheck", "60")  # else a worker that starts slowly ends the restart
        self.process = subprocess.Popen(
            [*command, "--port", str(port), "--log-level", "error", *patience],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(directory)},
            process_group=0,
        )

    def post(self, path: str) -> int:
        """Return the process id of the worker that answered."""
        request = urllib.request.Request(f"{self._url}{path}", method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.read())

    def metrics(self) -> dict[str, float]:
        """Return the values of all samples by name and labels, as a scrape sees them."""
        with urllib.request.urlopen(f"{self._url}/metrics/", timeout=60) as answer:
            text = answer.read().decode()
        return {
            sample.name + "".join(f"[{value}]" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def await_metric(self, name: str, value: float) -> None:
        until(lambda: self.metrics().get(name) == value)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    workers = Workers(tmp_path)
    try:
        until(lambda: bool(workers.metrics()))
        yield workers
    finally:
        stop(workers.process, 60)


def test_workers_add_up_and_a_killed_one_gives_back_what_it_had_in_flight(workers: Workers) -> None:
    """A scrape reaches one worker and must show all; a crash must leave neither entries nor an outage for ever."""
    published = Counter[int]()

    def both_answered() -> bool:
        published[workers.post("/publish")] += 1
        return len(published) == 2

    until(both_answered)
    total = published.total()
    metrics = workers.metrics()
    assert metrics["fanout_guard_decisions_total[admitted][]"] == total
    assert metrics["fanout_guard_decision_seconds_count"] == total
    assert metrics["fanout_guard_inflight_sites"] == 10 * total
    assert metrics["fanout_guard_outage"] == 0

    failed = workers.post("/fail")
    assert workers.metrics()["fanout_guard_outage"] == 1

    os.kill(failed, signal.SIGKILL)
    workers.await_metric("fanout_guard_inflight_sites", 10 * (total - published[failed]))
    workers.await_metric("fanout_guard_outage", 0)
    assert workers.metrics()["fanout_guard_decisions_total[admitted][]"] == total


def test_workers_that_are_replaced_in_an_outage_do_not_leave_it_on_the_page(workers: Workers) -> None:
    """Uvicorn starts a worker before it stops the old one, so no start comes after the last of those has ended."""
    failed = set[int]()

    def both_failed() -> bool:
        failed.add(workers.post("/fail"))
        return len(failed) == 2

    until(both_failed)
    workers.process.send_signal(signal.SIGHUP)

    def shows_no_outage() -> bool:
        return workers.post("/publish") not in failed and workers.metrics()["fanout_guard_outage"] == 0

    until(shows_no_outage)


@pytest.mark.parametrize("directory", ["missing", "a-file", "a-file/below"])
def test_a_directory_that_cannot_be_used_is_a_configuration_error(directory: str, tmp_path: Path) -> None:
    """It is the operator's to create, and a traceback of another library does not say so."""
    (tmp_path / "a-file").touch()
    code = (
        "from fanout_guard.errors import ConfigurationError\n"
        "from fanout_guard.observe.install import observers\n"
        "try:\n"
        "    observers(prometheus=True)\n"
        "except ConfigurationError as error:\n"
        "    assert 'PROMETHEUS_MULTIPROC_DIR' in str(error)\n"
        "else:\n"
        "    raise AssertionError"
    )
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / directory)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
