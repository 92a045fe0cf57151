"""What one run of the load generator sends: phases of circulations, and the requests themselves.

Shared by the locustfile and the commands that start it, so it imports neither Locust nor the analysis.
"""

from __future__ import annotations

import json
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote

from msgspec import Struct, field
from msgspec.json import decode, encode
from msgspec.structs import replace

TEMPLATE = {
    "document_id": "{document_id}",
    "document_headline": "{headline}",
    "target_sites": "{sites}",
}


class Phase(Struct, frozen=True, kw_only=True):
    """``documents`` circulations to ``sites`` sites each, ``rate`` a second, after ``discarded`` ones.

    A phase ``beside`` another starts together with the one before it instead of after it. ``poisson`` is the
    seed of random gaps; None spaces evenly. ``refused`` says that the target's cap has to refuse every one.
    """

    sweep: int
    sites: int
    documents: int
    rate: float
    tenant: str = "default"
    name: str = "level"
    discarded: int = 1
    beside: bool = False
    poisson: int | None = None
    refused: bool = False

    @property
    def seconds(self) -> float:
        """From the first scheduled circulation to the end of the last one's slot."""
        return self.documents / self.rate

    def schedule(self, begin: float) -> list[float]:
        """When each is to be sent: fixed before the first, so that a slow target changes nothing."""
        if self.poisson is None:
            return [begin + index / self.rate for index in range(self.documents)]
        random = Random(self.poisson)
        gaps = [random.expovariate(self.rate) for _ in range(self.documents)]
        return [begin + due for due in accumulate(gaps)]


class Plan(Struct, frozen=True, kw_only=True):
    """Everything the generator needs; ``site_names`` empty means the invented names of the example."""

    phases: tuple[Phase, ...]
    run: str = "run"
    path: str = "/circulate-document"
    headers: dict[str, str] = field(default_factory=lambda: {"X-Tenant-ID": "{tenant}"})
    body: Any = field(default_factory=lambda: dict(TEMPLATE))
    site_names: tuple[str, ...] = ()
    drain_seconds: float = 20.0

    def save(self, path: Path) -> None:
        """Write the plan for the generator."""
        path.write_bytes(encode(self))

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan; raises msgspec.ValidationError or OSError."""
        return decode(path.read_bytes(), type=cls)

    def without_secrets(self) -> Plan:
        """The plan for people to look at: what a header holds may be a token."""
        return replace(
            self, headers={name: text if text == "{tenant}" else "***" for name, text in self.headers.items()}
        )

    def sites(self, count: int) -> list[str]:
        """The first ``count`` names to publish to."""
        if not self.site_names:
            return [f"Site{number}" for number in range(1, count + 1)]
        if count > len(self.site_names):
            raise ValueError(f"{count} sites are asked for, {len(self.site_names)} names are known")
        return list(self.site_names[:count])

    def request(self, phase: Phase, index: int) -> tuple[str, dict[str, str], bytes]:
        """Path, headers and body of one circulation; every circulation is a document of its own."""
        values = {
            "document_id": f"{self.run}-{phase.name}-{phase.sweep}-{phase.sites}-{index}",
            "headline": f"Stress test, {phase.sites} sites",
            "tenant": phase.tenant,
        }
        path = _fill_text(self.path, {name: quote(value, safe="") for name, value in values.items()})
        headers = {name: _fill_text(text, values) for name, text in self.headers.items()}
        body = _fill(self.body, values, self.sites(phase.sites))
        if "content-type" not in map(str.lower, headers):
            headers["Content-Type"] = "application/json"
        return path, headers, json.dumps(body).encode()


class Outcome(Struct, frozen=True, kw_only=True, tag="document"):
    """How one circulation ended; times are seconds since the epoch, latency counts from ``scheduled``.

    ``result`` is ``ok`` (every site has it), ``refused`` (by the target's cap), ``failed`` or ``unfinished``.
    A negative ``index`` is a discarded one. ``lag_ms`` is how late it was sent; 0 if it was not sent at all.
    """

    phase: int
    index: int
    scheduled: float
    result: str
    latency_ms: float = 0.0
    lag_ms: float = 0.0
    status: int = 0
    detail: str = ""


class PhaseEnd(Struct, frozen=True, kw_only=True, tag="phase"):
    """A phase is over: everything it sent has ended or was given up after the drain."""

    phase: int
    begin: float
    end: float
    drain_seconds: float


def check_template(template: Any, *, path: str = "") -> None:
    """Raise ValueError unless a body template carries the sites and, where the path does not, the document's id."""
    bare = _fill(template, {}, [])
    missing = ['"{sites}"'] if bare == template else []
    if "{document_id}" not in path and _fill(template, {"document_id": ""}, []) == bare:
        missing.append("{document_id}")
    if missing:
        raise ValueError(f"the body template lacks {' and '.join(missing)}")


def _fill(template: Any, values: dict[str, str], sites: list[str]) -> Any:
    if template == "{sites}":
        return sites
    if isinstance(template, str):
        return _fill_text(template, values)
    if isinstance(template, list):
        return [_fill(item, values, sites) for item in template]
    if isinstance(template, dict):
        return {name: _fill(item, values, sites) for name, item in template.items()}
    return template


def _fill_text(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text
