"""The layers in the order that works: CORS, gzip, authentication, the guard, and then the application."""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from fanout_guard import FanoutGuardMiddleware
from tests.integrations.apps.common import EXPOSED, ORIGIN, Authentication

LAYERS = [
    Middleware(
        CORSMiddleware,
        allow_origins=[ORIGIN],
        allow_methods=["POST"],
        allow_headers=["Authorization"],
        expose_headers=EXPOSED,
    ),
    Middleware(GZipMiddleware, minimum_size=100),
    Middleware(Authentication),
    Middleware(FanoutGuardMiddleware),
]
