"""Per-tenant caps on fan-out for ASGI applications, counted in Redis."""

from fanout_guard.admission import Admission
from fanout_guard.asgi.middleware import FanoutGuardMiddleware
from fanout_guard.core.circulation import Circulation
from fanout_guard.core.model import Decision
from fanout_guard.core.policy import Caps
from fanout_guard.errors import ConfigurationError, FanoutRejected
from fanout_guard.guard import FanoutGuard
from fanout_guard.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "Admission",
    "Caps",
    "Circulation",
    "ConfigurationError",
    "Decision",
    "FanoutGuard",
    "FanoutGuardMiddleware",
    "FanoutRejected",
    "Settings",
]
