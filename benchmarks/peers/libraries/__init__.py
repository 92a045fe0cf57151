"""One adapter per library: what its own documentation says to do, and nothing else."""

from __future__ import annotations

from benchmarks.peers.libraries import (
    asgi_ratelimit,
    fastapi_limiter,
    fastapi_redis,
    limits,
    pyrate,
    slowapi,
    throttled,
)
from benchmarks.peers.subjects import Subject

PEERS: tuple[Subject, ...] = (
    *limits.SUBJECTS,
    *slowapi.SUBJECTS,
    *throttled.SUBJECTS,
    *pyrate.SUBJECTS,
    *fastapi_limiter.SUBJECTS,
    *fastapi_redis.SUBJECTS,
    *asgi_ratelimit.SUBJECTS,
)
