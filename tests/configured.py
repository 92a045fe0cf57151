"""Settings as tests say them: variables without their prefix."""

from __future__ import annotations

import pytest

from fanout_guard import ConfigurationError, Settings


def environ(**variables: str) -> dict[str, str]:
    """The environment with these variables."""
    return {f"FANOUT_GUARD_{name}": value for name, value in variables.items()}


def settings(**variables: str) -> Settings:
    """The settings with these variables, all others at their defaults."""
    return Settings.from_env(environ(**variables))


def problems(**variables: str) -> list[str]:
    """What is wrong with these variables."""
    with pytest.raises(ConfigurationError) as caught:
        settings(**variables)
    return list(caught.value.problems)
