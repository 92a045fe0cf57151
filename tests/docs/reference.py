"""The configuration reference, made from the table of settings."""

from __future__ import annotations

from fanout_guard.settings.model import variables
from fanout_guard.settings.variable import PREFIX, TENANT_FORM, Variable


def reference() -> str:
    """A Markdown table of every variable: name without its prefix, default, meaning, what is accepted."""
    lines = ["| variable | default | meaning | accepted |", "|---|---|---|---|"]
    return "\n".join(lines + [_line(variable) for variable in variables()]) + "\n"


def _line(variable: Variable) -> str:
    empty = f" Empty: {variable.empty}." if variable.empty else ""
    accepted = "one field of `TENANTS`" if variable.name == TENANT_FORM else variable.kind.accepts
    cells = (f"`{variable.name.removeprefix(PREFIX)}`", _default(variable), variable.help + empty, accepted)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(variable: Variable) -> str:
    text = variable.text(variable.default)
    return variable.unset or (f"`{text}`" if text else "")
