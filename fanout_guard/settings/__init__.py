"""The settings of a deployment: one immutable value, read from the environment or built in code."""

from fanout_guard.settings.model import Settings
from fanout_guard.settings.variable import PREFIX

__all__ = ["PREFIX", "Settings"]
