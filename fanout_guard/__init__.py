"""Per-tenant caps on fan-out for ASGI applications."""

__version__ = "0.1.0"
