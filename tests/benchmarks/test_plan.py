"""What the generator is told to send, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.plan import Phase, Plan, check_template


def phase(**changes: object) -> Phase:
    return Phase(**{"sweep": 1, "sites": 3, "documents": 4, "rate": 2.0, **changes})  # type: ignore[arg-type]


def test_arrivals_are_fixed_beforehand_and_evenly_spaced() -> None:
    """An open loop: a target that stalls must not slow the arrivals down."""
    assert phase().schedule(100.0) == [100.0, 100.5, 101.0, 101.5]


def test_random_gaps_repeat_with_their_seed() -> None:
    """A run can only be repeated if its arrivals can."""
    first, second = phase(poisson=7).schedule(0.0), phase(poisson=7).schedule(0.0)
    assert first == second
    assert first != phase(poisson=8).schedule(0.0)
    assert sorted(first) == first


def test_every_circulation_is_a_document_of_its_own() -> None:
    """Documents that repeat would meet the document cap and measure something else."""
    plan = Plan(phases=(phase(), phase(sweep=2)), run="r")
    ids = {json.loads(plan.request(one, index)[2])["document_id"] for one in plan.phases for index in range(-1, 4)}
    assert len(ids) == 10


def test_the_request_is_the_one_of_the_story() -> None:
    """The guard must work with exactly the request that clients send today."""
    path, headers, body = Plan(phases=(), run="r").request(phase(tenant="acme"), 0)
    assert path == "/circulate-document"
    assert headers == {"Content-Type": "application/json", "X-Tenant-ID": "acme"}
    sent = json.loads(body)
    assert set(sent) == {"document_id", "document_headline", "target_sites"}
    assert sent["target_sites"] == ["Site1", "Site2", "Site3"]


def test_a_template_is_filled_at_any_depth() -> None:
    """Other APIs wrap the same three things differently."""
    body = {"data": [{"doc": "v2/{document_id}", "to": "{sites}", "keep": 1}], "by": "{tenant}"}
    plan = Plan(phases=(), run="r", body=body, headers={"Authorization": "Bearer {tenant}"}, site_names=("x", "y", "z"))
    _, headers, sent = plan.request(phase(tenant="acme"), 2)
    assert headers["Authorization"] == "Bearer acme"
    assert json.loads(sent) == {"data": [{"doc": "v2/r-level-1-3-2", "to": ["x", "y", "z"], "keep": 1}], "by": "acme"}


def test_a_content_type_of_the_users_own_is_the_only_one() -> None:
    """Two of them on one request, and an API refuses it or takes the wrong one."""
    headers = Plan(phases=(), run="r", headers={"content-type": "application/vnd.api+json"}).request(phase(), 0)[1]
    assert headers == {"content-type": "application/vnd.api+json"}


def test_the_documents_id_may_be_in_the_path() -> None:
    """The guard takes it from there too (``DOCUMENT=path:…``); a tenant's id stays one segment."""
    path = "/tenants/{tenant}/documents/{document_id}/circulate"
    plan = Plan(phases=(), run="r", path=path, body={"to": "{sites}"})
    assert plan.request(phase(tenant="a/b ü"), 2)[0] == "/tenants/a%2Fb%20%C3%BC/documents/r-level-1-3-2/circulate"
    check_template(plan.body, path=path)


def test_a_site_named_like_a_placeholder_stays_itself() -> None:
    """Names are data: filling them would publish to another site."""
    plan = Plan(phases=(), run="r", site_names=("{tenant}", "{sites}", "ü"))
    assert json.loads(plan.request(phase(), 0)[2])["target_sites"] == ["{tenant}", "{sites}", "ü"]


@pytest.mark.parametrize(
    "template",
    [
        {},
        [],
        "{sites}",
        {"a": "{sites}"},
        {"a": "{document_id}"},
        {"a": "{document_id}", "b": "to {sites}"},
        {"a": "{document_id}", "{sites}": "b"},
        {"{document_id}": "a", "b": "{sites}"},
    ],
)
def test_a_template_without_sites_or_document_is_refused(template: object) -> None:
    """It would send the same document, or no site, over and over."""
    with pytest.raises(ValueError, match="lacks"):
        check_template(template)


def test_a_level_goes_to_as_many_of_the_names_as_it_has_sites() -> None:
    """The file has names for the largest level; a smaller one that went to all of them would measure the largest."""
    plan = Plan(phases=(), site_names=("a", "b", "c", "d"))
    assert json.loads(plan.request(phase(), 0)[2])["target_sites"] == ["a", "b", "c"]


def test_more_sites_than_names_is_an_error() -> None:
    """Nothing is ever published to invented sites."""
    with pytest.raises(ValueError, match="3 sites are asked for, 2 names are known"):
        Plan(phases=(), site_names=("a", "b")).sites(3)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    """The generator is another process and reads what the command wrote."""
    plan = Plan(phases=(phase(beside=True, poisson=3, refused=True),), run="r", site_names=("a",))
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
