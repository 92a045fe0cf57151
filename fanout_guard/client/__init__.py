"""For tenants: circulate a document to any number of sites through an API whose caps allow fewer at a time.

    from fanout_guard.client import StateFile, circulate

    report = circulate(
        "https://api.example/circulate-document",
        {"document_id": "d-1", "document_headline": "News"},
        sites,                                    # 1,200 names; the cap is 300
        headers={"X-Tenant-ID": "acme"},
        state=StateFile("d-1.json"),              # a second call goes on where this one ended
        progress=print,
    )
    report.complete, report.not_sent, report.unknown, report.stopped

The client learns the caps from the answers: the problem documents of refusals, ``Retry-After`` and the RateLimit
fields. Needs the extra ``client``.
"""

try:
    import http_sf as _http_sf  # noqa: F401  (here, so that whatever is missing of the extra is told in one place)
    import httpx as _httpx  # noqa: F401
except ModuleNotFoundError as error:
    missing = f"fanout_guard.client needs {error.name}: pip install 'fanout-guard[client]'"
    raise ModuleNotFoundError(missing, name=error.name) from error

from fanout_guard.client.drive import circulate, circulate_async
from fanout_guard.client.report import Progress, Report, Stop, StopReason
from fanout_guard.client.rules import Rules
from fanout_guard.client.sites import Site
from fanout_guard.client.state import Journal, State, StateError
from fanout_guard.client.statefile import StateFile

__all__ = [
    "Journal",
    "Progress",
    "Report",
    "Rules",
    "Site",
    "State",
    "StateError",
    "StateFile",
    "Stop",
    "StopReason",
    "circulate",
    "circulate_async",
]
