"""Which sites are one to the client: those that are one to the guard when they arrive."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fanout_guard.client.sites import distinct, read_site
from fanout_guard.core.circulation import site_keys
from fanout_guard.core.strict_json import Members, parse

# Few and alike, so that equal ones meet.
VALUES: list[Any] = [
    0,
    0.0,
    -0.0,
    1,
    1.0,
    10**16,
    1e16,
    True,
    False,
    None,
    "",
    "1",
    "1.0",
    "true",
    "a",
    "A",
    "\u00e9",
    "e\u0301",
]
NESTED = st.recursive(
    st.sampled_from(VALUES),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("a", "b", "\u00e9")), inner, max_size=2)
    ),
    max_leaves=4,
)
SITES = NESTED.filter(lambda site: not isinstance(site, list))


@given(st.lists(SITES, min_size=2, max_size=6))
def test_what_the_client_sends_is_as_many_sites_to_the_guard(sites: list[Any]) -> None:
    """Else one would be left out as sent already, or be sent and counted twice."""
    spellings, repeated = distinct(sites)
    body = json.dumps({"target_sites": [read_site(spelling) for spelling in spellings]}).encode()
    tree = parse(body)
    assert isinstance(tree, Members)
    ((_, arrived),) = tree
    assert len(set(site_keys(arrived))) == len(spellings)
    assert len(set(site_keys(sites))) == len(spellings) == len(sites) - len(repeated)
