"""Settings as tests say them: variables without their prefix."""

from __future__ import annotations

from fanout_guard import Settings


def environ(**variables: str) -> dict[str, str]:
    """The environment with these variables."""
    return {f"FANOUT_GUARD_{name}": value for name, value in variables.items()}


def settings(**variables: str) -> Settings:
    """The settings with these variables, all others at their defaults."""
    return Settings.from_env(environ(**variables))
