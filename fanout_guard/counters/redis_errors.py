"""What the driver's errors mean: one fixed word each, since no text of theirs leaves the counters."""

from __future__ import annotations

from redis import exceptions

from fanout_guard.counters.reasons import reason_of_text

_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.NoScriptError, "noscript"),
    (exceptions.NoPermissionError, "noperm"),
    (exceptions.AuthenticationError, "auth"),
    (exceptions.AuthenticationWrongNumberOfArgsError, "auth"),
    (exceptions.AuthorizationError, "auth"),
    (exceptions.ReadOnlyError, "readonly"),
    (exceptions.MasterDownError, "readonly"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.OutOfMemoryError, "oom"),
    (exceptions.ClusterError, "cluster"),
    (exceptions.ClusterCrossSlotError, "cluster"),  # what a node says to whom takes it for a server of its own
    (exceptions.AskError, "cluster"),
    (exceptions.TryAgainError, "cluster"),
    (exceptions.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (exceptions.ConnectionError, "connection"),
    (OSError, "connection"),
)


def reason_of(error: BaseException) -> str:
    """The word for an error of the driver, or for one that a server replied."""
    for kind, reason in _KINDS:
        if isinstance(error, kind):
            return reason
    return reason_of_text(str(error)) if isinstance(error, exceptions.ResponseError) else "other"
