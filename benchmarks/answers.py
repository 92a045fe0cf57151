"""What an answer of the target means for the test: delivered, refused by its cap, or failed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

OVER_CAP = "urn:problem-type:fanout-guard:circulation-cap-exceeded"
OVER_QUOTA = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def classify(status: int, headers: Mapping[str, str], body: bytes, *, asked: int) -> tuple[str, str]:
    """Result (``ok``, ``refused`` or ``failed``) and detail of one answered circulation to ``asked`` sites.

    A 200 that did not reach every site is a failure: it must never enter the latencies as a fast success. So
    is a refusal without what a client needs to act on it.
    """
    answer = _json(body)
    if 200 <= status < 300:
        delivered = answer.get("delivered", asked)
        # its ASCII form, shortened: it goes to a terminal, and a list of sites would fill it
        return ("ok", "") if delivered == asked else ("failed", f"delivered {ascii(delivered)[:40]} of {asked}")
    if headers.get("content-type", "").startswith("application/problem+json"):
        kind = answer.get("type")
        if kind == OVER_CAP or (kind == OVER_QUOTA and status == 429 and _waits(headers)):
            return "refused", str(answer.get("violated-policies", ""))
    return "failed", f"status {status}"


def _waits(headers: Mapping[str, str]) -> bool:
    text = headers.get("retry-after", "")
    return text.isascii() and text.isdigit() and int(text) >= 1


def _json(body: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
