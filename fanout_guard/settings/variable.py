"""One variable of the environment: the field it fills, what it accepts, what it is for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field
from typing import Any, TypeVar, cast

from fanout_guard.core.values import Kind, problem
from fanout_guard.errors import ConfigurationError

PREFIX = "FANOUT_GUARD_"
TENANT_PREFIX = f"{PREFIX}TENANT__"
TENANT_FORM = f"{TENANT_PREFIX}<ID>__<FIELD>"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable with its default; ``help`` is one sentence, ``empty`` says what an empty text means, if anything.

    ``unset`` describes the default where the value itself says too little.
    """

    field: str
    default: Any
    kind: Kind
    help: str
    empty: str | None
    unset: str | None

    @property
    def name(self) -> str:
        """The name in the environment."""
        return TENANT_FORM if self.field == "tenant_fields" else PREFIX + self.field.upper()

    def read(self, text: str) -> Any:
        """The value that ``text`` gives; an empty text that has no meaning of its own is as good as none."""
        if text == "":
            return self.default if self.empty is None else ""
        return self.kind.parse(text)

    def check(self, value: Any) -> Any:
        """``value`` in its final form; a default and an empty text with a meaning need no check."""
        if value is None and self.default is None:
            return None
        if value == "" and (self.default == "" or self.empty is not None):
            return ""
        return self.kind.check(value)

    def shown(self, value: Any) -> Any:
        """``value`` as JSON can hold it, a secret masked."""
        if value and self.kind.mask is not None:
            return self.kind.mask(value)
        if isinstance(value, Mapping):
            return {tenant: caps.given() for tenant, caps in value.items()}
        return value

    def text(self, shown: Any) -> str:
        """A shown value as the environment would spell it, and what it means where that is nothing."""
        if shown in (None, "", {}):
            meaning = self.empty if shown == "" and self.empty else self.unset
            return f"({meaning})" if meaning else ""
        if isinstance(shown, bool | dict):
            return json.dumps(shown)
        return str(shown)

    def stands_in(self, environ: Mapping[str, str]) -> bool:
        """Whether ``environ`` sets this variable; an empty one counts only if it means something."""
        if self.name == TENANT_FORM:
            return any(name.startswith(TENANT_PREFIX) and text for name, text in environ.items())
        text = environ.get(self.name)
        return text is not None and (text != "" or self.empty is not None)

    def problems(self, value: object, error: ValueError) -> list[str]:
        """What is wrong with ``value``, one line a problem."""
        if isinstance(error, ConfigurationError):
            return [f"{self.name}: {line}" for line in error.problems]
        return [problem(self.name, value, self.kind, error)]


def setting(default: T, kind: Kind, help: str, *, empty: str | None = None, unset: str | None = None) -> T:  # noqa: A002
    """A field of the settings, and with it a variable of the environment."""
    metadata = {"kind": kind, "help": help, "empty": empty, "unset": unset}
    if isinstance(default, dict):
        return cast(T, field(default_factory=dict, metadata=metadata))
    return field(default=default, metadata=metadata)


def variable_of(of: Field[Any]) -> Variable:
    """The variable that a field made by ``setting`` stands for."""
    default = {} if of.default is MISSING else of.default
    return Variable(of.name, default, **of.metadata)
