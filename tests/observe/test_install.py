"""Which observers a configuration gets, and what that imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fanout_guard.core.model import Decision
from fanout_guard.observe.install import observers
from tests.observe.conftest import Decide


def run(code: str) -> None:
    """Run code in an interpreter of its own: imports and the default registry are per process."""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_rejections_are_logged_by_default(reject: Decide, log: pytest.LogCaptureFixture) -> None:
    """Without any configuration an operator must at least find the refusals in the log."""
    observers(on_outage="closed").decided(reject(), 0.001)
    assert "circulation rejected" in log.text


async def test_the_users_hook_is_installed(decide: Decide) -> None:
    """``on_decision=`` is the one hook that a user writes, so it must arrive here."""
    seen: list[Decision] = []
    hook = observers(on_decision=seen.append).hook
    assert hook is not None
    await hook(decide())
    assert len(seen) == 1


def test_prometheus_is_imported_only_when_asked_for() -> None:
    """Its import starts collectors and takes memory in every worker that never exports."""
    run(
        "import sys\n"
        "from fanout_guard.observe.install import observers\n"
        "observers()\n"
        "assert 'prometheus_client' not in sys.modules\n"
        "observers(prometheus=True)\n"
        "assert 'prometheus_client' in sys.modules"
    )


def test_metrics_go_into_the_default_registry() -> None:
    """The ``/metrics`` endpoint that an application already has must show them without any wiring."""
    run(
        "from fanout_guard.observe.install import observers\n"
        "observers(prometheus=True)\n"
        "import prometheus_client\n"
        "assert b'fanout_guard_outage 0.0' in prometheus_client.generate_latest()"
    )


def test_metrics_without_the_extra_are_a_configuration_error() -> None:
    """The message must name the variable and the command, not a module that nobody has heard of."""
    run(
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from fanout_guard import ConfigurationError, FanoutGuard, Settings\n"
        "try:\n"
        "    FanoutGuard(Settings(metrics='prometheus'))\n"
        "except ConfigurationError as error:\n"
        "    assert 'FANOUT_GUARD_METRICS' in str(error)\n"
        "    assert 'fanout-guard[prometheus]' in str(error)\n"
        "else:\n"
        "    raise AssertionError"
    )
