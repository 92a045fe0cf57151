"""What the example reads from the environment, in one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Config:
    """The example API's settings; ``slots`` is deliveries at a time per process."""

    slots: int = 300
    sites_url: str = "http://127.0.0.1:8100"
    database: str = "publishing.sqlite3"
    guarded: bool = True
    nonce: str = ""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Config:
        """Read ``PUBLISHING_SLOTS``, ``…_SITES_URL``, ``…_DATABASE``, ``…_GUARD`` (on, off), ``…_NONCE``."""
        env = os.environ if environ is None else environ
        return cls(
            slots=int(env.get("PUBLISHING_SLOTS", cls.slots)),
            sites_url=env.get("PUBLISHING_SITES_URL", cls.sites_url).rstrip("/"),
            database=env.get("PUBLISHING_DATABASE", cls.database),
            guarded=env.get("PUBLISHING_GUARD", "on") != "off",
            nonce=env.get("PUBLISHING_NONCE", ""),
        )
