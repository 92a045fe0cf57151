"""What tests of faults start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.servers import Node, running


@pytest.fixture
def server() -> Iterator[Node]:
    """A server of this test's own."""
    with running() as node:
        yield node
