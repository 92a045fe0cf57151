"""What can name a tenant: one rule for requests, calls and configuration."""

from __future__ import annotations

DEFAULTS = "*"
"""Stands for the deployment's defaults where a tenant is named."""

MAX_TENANT_BYTES = 256
"""The longest tenant id, in UTF-8."""

ACCEPTED = f"1 to {MAX_TENANT_BYTES} bytes of UTF-8, no spaces around it, not {DEFAULTS!r}"
"""In words, what can name a tenant."""


def check_tenant(tenant: object) -> str:
    """``tenant`` as a plain text; ValueError where it cannot name one, with what is the matter as a sentence's end."""
    if not isinstance(tenant, str):
        raise ValueError("is not a string")
    if not tenant:
        raise ValueError("is empty")
    if tenant == DEFAULTS:
        raise ValueError(f"is {DEFAULTS!r}, which stands for the deployment's defaults")
    if tenant != tenant.strip():
        # Servers differ in what they leave around a header's value, applications in what they take away.
        raise ValueError("has space around it")
    try:
        size = len(tenant.encode())
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    if size > MAX_TENANT_BYTES:
        raise ValueError(f"is longer than {MAX_TENANT_BYTES} bytes of UTF-8")
    # The base class's text, since an enum of strings prints its member's name: in logs, and in idempotency keys.
    return str.__str__(tenant)
