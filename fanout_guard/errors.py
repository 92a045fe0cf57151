"""The base of all errors, and those that a caller of the guard can meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fanout_guard.core.model import Decision


class FanoutGuardError(Exception):
    """Base of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default a copy calls the class with the text alone; ours take other arguments, so ``__init__`` is left out.
        return _anew, (type(self), *self.args), vars(self)


class ConfigurationError(FanoutGuardError, ValueError):
    """Raised when settings or caps are wrong; ``problems`` has every problem, one line each, and never a secret."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class CirculationError(FanoutGuardError, ValueError):
    """Raised when a caller or hook gives an invalid circulation: no list of sites, a refused entry, no document."""


class UnknownTenant(FanoutGuardError, LookupError):
    """Raised for a ``tenant`` that no configuration names, if ``UNKNOWN_TENANTS`` is ``reject``."""

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        super().__init__("no configuration names this tenant, and FANOUT_GUARD_UNKNOWN_TENANTS is 'reject'")


class FanoutRejected(FanoutGuardError):
    """Raised when ``FanoutGuard.circulation`` is refused; ``decision`` says by which cap and what would fit."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        why = "in an outage of the counters" if decision.policy == "outage" else f"by the {decision.policy} cap"
        super().__init__(f"circulation rejected {why}")


class CountersUnavailable(FanoutGuardError):
    """Raised when the shared counters cannot be reached in time; ``reason`` is a short fixed word.

    ``sent`` is False if the request cannot have reached them; ``alone`` is True if only this request failed.
    """

    def __init__(self, reason: str, *, sent: bool = True, alone: bool = False) -> None:
        self.reason = reason
        self.sent = sent
        self.alone = alone
        super().__init__(f"counters unavailable: {reason}")


def _anew(kind: type[FanoutGuardError], *args: object) -> FanoutGuardError:
    return kind.__new__(kind, *args)
