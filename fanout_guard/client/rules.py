"""How a caller wants a circulation done: the shape of the request, and how patient to be."""

from __future__ import annotations

from dataclasses import dataclass

DAY_S = 86_400.0
MAY_BE_NONE = ("idempotency_header", "max_sites", "deadline_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The shape of the request and the limits of patience; raises ValueError for values that make no sense.

    ``first_sites`` is how many sites to begin with until an answer reveals the cap: if a first request for everything
    lost its answer, everything would be in doubt. ``max_sites`` is a bound of your own. ``attempts`` is how often in a
    row the server may fail or be unreachable, ``max_unknown`` how many circulations in a row may end in doubt.
    ``max_wait_s`` bounds all waits together, ``deadline_s`` the whole call: a circulation that still has no answer
    then is given up, and is in doubt like any whose answer was lost.

    ``idempotency_header`` is for APIs that themselves deliver a repeated key once: a request whose answer was lost is
    then sent again with its key, for ``idempotency_lifetime_s``. Without it no such request is ever repeated.
    """

    method: str = "POST"
    sites_field: str = "target_sites"
    first_sites: int = 300
    max_sites: int | None = None
    idempotency_header: str | None = None
    idempotency_lifetime_s: float = DAY_S
    attempts: int = 8
    max_unknown: int = 2
    max_wait_s: float = DAY_S
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        for names, accepted, expected in (
            (("method", "sites_field", "idempotency_header"), _is_text, "a text that is not empty"),
            (("first_sites", "max_sites", "attempts", "max_unknown"), _is_count, "a whole number, at least 1"),
            (("idempotency_lifetime_s", "max_wait_s", "deadline_s"), _is_seconds, "seconds, at least 0"),
        ):
            for name in names:
                value = getattr(self, name)
                if not (accepted(value) or (value is None and name in MAY_BE_NONE)):
                    raise ValueError(f"{name} is {value!r}, expected {expected}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0  # nan is not
