"""The monitoring example: names that exist, alerts that fire, and a real Prometheus that answers every panel."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import combinations, count
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from prometheus_client import CollectorRegistry

from fanout_guard.observe.prometheus import PrometheusObserver
from tests.ports import free_port
from tests.waiting import until

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "examples" / "monitoring"
RUNBOOK = ROOT / "docs" / "failure-modes.md"
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = (MONITORING / "alerts.yml").read_text()

Query: TypeAlias = tuple[str, str]
"""The title of a panel, and one of its queries."""

QUERIES: list[Query] = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]

ZERO_WHEN_ALL_IS_WELL = re.compile("outage|counter_errors|inflight_sites|leases_expired")
JOBS = {"publishing-api": "off", "by-tenant": "configured"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool on the PATH (Debian package prometheus)",
)


def names_in(text: str) -> set[str]:
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"fanout_guard_[a-z_]+", text)}


def exported_names() -> set[str]:
    registry = CollectorRegistry()
    PrometheusObserver(registry=registry)
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    """A renamed metric leaves an empty panel that nobody notices until the night it is needed."""
    assert names_in(" ".join(query for _, query in QUERIES)) == exported_names()


def test_alerts_watch_metrics_that_exist() -> None:
    """An alert on a name that does not exist never fires."""
    expressions = ALERTS.replace("name: fanout_guard\n", "")
    assert names_in(expressions) <= exported_names()
    assert "fanout_guard_outage" in names_in(expressions)


def test_every_alert_says_what_it_means_and_where_to_read_on() -> None:
    """The reader has just been woken up and has never heard of the guard."""
    alerts = ALERTS.split("- alert: ")[1:]
    assert len(alerts) == 8
    for alert in alerts:
        for part in ("severity: ", "summary: ", "description: ", "runbook_url: docs/failure-modes.md#"):
            assert part in alert, alert


@pytest.mark.skipif(not RUNBOOK.exists(), reason="this copy has no docs")
def test_every_alert_links_to_a_heading_of_the_runbook() -> None:
    """A link to a heading that was renamed opens at the top of a long page."""
    headings = re.findall(r"^#+ (.+?)\s*(?:\{ *#([\w-]+) *\})?$", RUNBOOK.read_text(), re.MULTILINE)
    anchors = {given or re.sub(r"[^\w]+", "-", text.lower()).strip("-") for text, given in headings}
    assert set(re.findall(r"failure-modes\.md#([\w-]+)", ALERTS)) <= anchors


def test_the_dashboard_can_be_provisioned() -> None:
    """Provisioning skips a dashboard with an id of another Grafana, a missing title or a data source by name."""
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job", "tenant"]
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["title"]
        assert panel["description"]
        for source in (panel, *panel["targets"]):
            assert source["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0


def test_no_two_panels_overlap() -> None:
    """Grafana moves panels that overlap, and then everyone's dashboard looks different."""
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"])


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "--lint-fatal", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_agrees(command: list[str]) -> None:
    """Prometheus refuses to start with a bad file, and an alert is only worth what makes it fire."""
    result = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def get(url: str, **parameters: str) -> bytes:
    with urllib.request.urlopen(f"{url}?{urllib.parse.urlencode(parameters)}", timeout=60) as answer:
        body: bytes = answer.read()
        return body


class Api:
    """The example behind uvicorn, and one round of everything that a client may do to it."""

    def __init__(self, tenants: str, stack: ExitStack, *options: str, **variables: str) -> None:
        self.port = free_port()
        self._documents = count()
        settings = {
            "METRICS": "prometheus",
            "METRICS_TENANTS": tenants,
            "RATE": "100000000/minute",
            "MAX_INFLIGHT": "100000",
            "TENANTS": json.dumps({"acme": {"max_sites": 300}, "trial": {"mode": "shadow", "max_sites": 10}}),
        }
        env = os.environ | variables | {f"FANOUT_GUARD_{name}": value for name, value in settings.items()}
        uvicorn = [sys.executable, "-m", "uvicorn", "examples.monitoring.app:app"]
        self.metrics_url = f"http://127.0.0.1:{self.port}/metrics/"
        command = [*uvicorn, "--port", str(self.port), "--log-level", "critical", *options]
        start(command, self.metrics_url, stack, cwd=ROOT, env=env)

    def load(self) -> list[int]:
        """Send what is admitted, near a cap, refused, shadowed, refunded and unreadable; return the statuses."""
        document = f"d-{next(self._documents)}"
        return [
            self.circulate("acme", document, 250),
            self.circulate("acme", f"{document}-big", 600),
            self.circulate("acme", document, 100, first=1000),
            self.circulate("trial", document, 50),
            self.circulate("walk-in", f"missing-{document}", 40),
            self._post("acme", b"{not json"),
        ]

    def circulate(self, tenant: str, document: str, sites: int, first: int = 0) -> int:
        names = [f"Site{number}" for number in range(first, first + sites)]
        return self._post(tenant, json.dumps({"document_id": document, "target_sites": names}).encode())

    def _post(self, tenant: str, body: bytes) -> int:
        url = f"http://127.0.0.1:{self.port}/circulate-document"
        headers = {"X-Tenant-ID": tenant, "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code


def start(command: list[str], url: str, stack: ExitStack, **options: Any) -> None:
    """Start a server that ends with the stack, and wait until it answers."""
    process = subprocess.Popen(command, **options)
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)

    def answers() -> bool:
        assert process.poll() is None, f"{command} ended with {process.returncode}"
        return bool(get(url))

    until(answers)


@pytest.fixture
def apis() -> Iterator[dict[str, Api]]:
    with ExitStack() as stack:
        yield {job: Api(tenants, stack) for job, tenants in JOBS.items()}


@pytest.fixture
def prometheus(apis: dict[str, Api], tmp_path: Path) -> Iterator[str]:
    """A Prometheus with the example's configuration, only quicker, that scrapes both applications."""
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    config = (MONITORING / "prometheus.yml").read_text().replace("15s", "250ms")
    head, job = config.split("scrape_configs:\n")
    jobs = [
        job.replace("publishing-api", name).replace("localhost:8000", f"127.0.0.1:{api.port}")
        for name, api in apis.items()
    ]
    (tmp_path / "prometheus.yml").write_text(f"{head}scrape_configs:\n{''.join(jobs)}")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"]
    with ExitStack() as stack:
        start([*command, f"--web.listen-address=127.0.0.1:{port}"], f"{url}/-/ready", stack, cwd=tmp_path)
        yield url


def answered(prometheus: str, job: str, query: Query) -> bool:
    """Whether a panel would show something for this job: a number, and above zero where the load must show."""
    _, expression = query
    may_be_zero = ZERO_WHEN_ALL_IS_WELL.search(expression) is not None
    for variable, text in {"$__rate_interval": "10s", "$job": job, "$tenant": ".*"}.items():
        expression = expression.replace(variable, text)
    result = json.loads(get(f"{prometheus}/api/v1/query", query=expression))["data"]["result"]
    values = [float(series["value"][1]) for series in result]
    return any(math.isfinite(value) and (value > 0 or may_be_zero) for value in values)


@needs_prometheus
@pytest.mark.timeout(180)
def test_every_panel_has_data_under_load(prometheus: str, apis: dict[str, Api]) -> None:
    """The whole chain, with and without the tenant label: request, guard, exporter, scrape, query."""
    unanswered = [(job, query) for job in apis for query in QUERIES]

    def all_answered() -> bool:
        for api in apis.values():
            assert api.load() == [200, 422, 429, 200, 404, 400]
        unanswered[:] = [(job, query) for job, query in unanswered if not answered(prometheus, job, query)]
        return not unanswered

    until(all_answered, lambda: f"no data for {unanswered}")


@needs_prometheus
@pytest.mark.timeout(180)
def test_every_alert_is_evaluated_and_none_fires_on_a_healthy_api(prometheus: str) -> None:
    """An expression may pass the check and still fail on real labels; and a false alarm is soon ignored."""

    def rules() -> list[dict[str, Any]]:
        groups = json.loads(get(f"{prometheus}/api/v1/rules"))["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    until(lambda: len(rules()) == 8 and all(rule["health"] == "ok" for rule in rules()), lambda: str(rules()))
    assert [rule["name"] for rule in rules() if rule["state"] == "firing"] == []


def test_several_workers_show_one_page_of_metrics(tmp_path: Path) -> None:
    """As the README says it: each scrape reaches one worker, and must count what all of them did."""
    with ExitStack() as stack:
        api = Api("off", stack, "--workers", "2", PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
        until(lambda: len(list(tmp_path.glob("counter_*.db"))) == 2)
        for number in range(20):
            assert api.circulate("acme", f"d-{number}", 10) == 200
        # The lease ends after the response, so a scrape may come in between.
        until(lambda: b"fanout_guard_inflight_sites 0.0" in get(api.metrics_url))
        page = get(api.metrics_url).decode()
    assert 'fanout_guard_decisions_total{outcome="admitted",policy=""} 20.0' in page
    assert 'fanout_guard_sites_total{outcome="admitted"} 200.0' in page
