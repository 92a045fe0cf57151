"""The settings that are in force, as a person may see them, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fanout_guard.settings.model import Settings, variables
from fanout_guard.settings.variable import Variable


class Row(NamedTuple):
    """One effective setting, a secret masked; ``source`` is ``environment``, ``given`` or ``default``."""

    variable: Variable
    value: Any
    source: str

    @property
    def text(self) -> str:
        """The value as a table shows it."""
        return self.variable.text(self.value)


def effective(settings: Settings, environ: Mapping[str, str]) -> tuple[Row, ...]:
    """Every setting, secrets masked, and whether it stands in ``environ``, was given in code, or is a default."""
    return tuple(_row(variable, getattr(settings, variable.field), environ) for variable in variables())


def _row(variable: Variable, value: Any, environ: Mapping[str, str]) -> Row:
    source = "default" if value == variable.default else "given"
    if variable.stands_in(environ):
        source = "environment"
    return Row(variable, variable.shown(value), source)
