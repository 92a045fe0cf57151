"""What is measured: the example API, started here, or somebody's own API at ``--host``."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from benchmarks.plan import Plan
from examples.publishing_api.servers import ServerFailed, Servers, Setup, serve

LIFTED = "stress-lifted"
"""The tenant of levels above the cap: the same API, with a cap that the run lifts for it alone."""


class TargetFailed(RuntimeError):
    """Raised when the target does not start, cannot be reached, dies, or is not the one that was meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to send, as whom, and which processes to watch; ``servers`` is None for an API of somebody else."""

    host: str
    plan: Plan
    tenant: str
    lifted_tenant: str
    servers: Servers | None = None
    guarded: bool = True

    @property
    def pids(self) -> list[int]:
        """The root processes of the API, where they are ours to see."""
        return [self.servers.api.pid] if self.servers else []

    @property
    def helper_pids(self) -> list[int]:
        """What else this run started, so that its CPU is not taken for a disturbance."""
        return [self.servers.sites.pid] if self.servers else []

    @property
    def redis_url(self) -> str | None:
        """The server that the API counts in, where it is ours."""
        return self.servers.redis_url if self.servers else None

    def alive(self) -> None:
        """Cheap enough to ask while measuring: raises TargetFailed when a process has ended."""
        for process in (self.servers.api, self.servers.sites) if self.servers else ():
            if process.poll() is not None:
                raise TargetFailed(f"the target ended with status {process.returncode}")

    def check(self) -> None:
        """Raise TargetFailed unless the target answers, and is the one that was started."""
        try:
            if self.servers:
                self.servers.check()
            else:
                connect(self.host)
        except (ServerFailed, OSError) as error:
            raise TargetFailed(f"{self.host}: {error}") from error


def connect(host: str) -> None:
    """Open a connection and close it; raises OSError."""
    parts = urlsplit(host)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    socket.create_connection((parts.hostname or "", port), timeout=10).close()


@contextmanager
def example(setup: Setup, *, cap: int, largest: int, run: str) -> Iterator[Target]:
    """Run the example with ``cap`` as everybody's cap, and one tenant whose cap lets ``largest`` through."""
    lifted = max(largest, cap)
    environ = {
        "FANOUT_GUARD_MAX_SITES": str(cap),
        "FANOUT_GUARD_TENANTS": json.dumps({LIFTED: {"max_sites": lifted}}),
        # Enough for any document of the run; the guard checks that it is no contradiction to the caps.
        "FANOUT_GUARD_MAX_BODY_BYTES": str(max(2**20, 32 * lifted)),
    }
    setup = replace(setup, environ={**environ, **setup.environ})
    try:
        with serve(setup) as servers:
            yield Target(
                host=servers.api_url,
                plan=Plan(phases=(), run=run),
                tenant="stress",
                lifted_tenant=LIFTED,
                servers=servers,
                guarded=setup.guarded,
            )
    except ServerFailed as error:
        raise TargetFailed(str(error)) from error
