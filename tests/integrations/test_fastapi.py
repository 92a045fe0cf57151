"""What FastAPI users get beyond the middleware: the admission as a dependency, and an honest OpenAPI document."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from openapi_spec_validator import validate
from pydantic import BaseModel

from fanout_guard import Admission, FanoutGuardMiddleware, Settings
from fanout_guard.fastapi import (
    PROBLEM_JSON,
    PROBLEM_SCHEMA,
    AdmissionMissing,
    current_admission,
    document_guard,
    optional_admission,
)

PATH = "/circulate-document"


class Circulate(BaseModel):
    """The story's request."""

    document_id: str
    target_sites: list[str]


def publishing_api() -> FastAPI:
    """The story's API, without the guard."""
    app = FastAPI()

    @app.post(PATH)
    async def circulate(body: Circulate, admission: Annotated[Admission, Depends(current_admission)]) -> dict[str, Any]:
        """Circulate a document."""
        return {"tenant": admission.tenant, "sites": admission.sites, "entries": len(body.target_sites)}

    @app.post("/preview")
    async def preview(body: Circulate, admission: Annotated[Any, Depends(optional_admission)]) -> bool:
        """Show what would be circulated."""
        return admission is None

    return app


def guarded(app: FastAPI, **settings: Any) -> FastAPI:
    """The application behind the guard, as its users install it."""
    chosen = Settings(**settings)
    app.add_middleware(FanoutGuardMiddleware, settings=chosen)
    document_guard(app, chosen)
    return app


def send(app: FastAPI, path: str = PATH, *, sites: int = 3, first: int = 0) -> httpx.Response:
    """Circulate to so many sites; what the application raises is raised here."""
    body = {"document_id": "d", "target_sites": [f"Site{number}" for number in range(first, first + sites)]}

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, json=body, headers={"X-Tenant-ID": "acme"})

    return asyncio.run(post())


def responses(app: FastAPI, path: str = PATH) -> dict[str, Any]:
    """The documented answers of a POST, in a document that is valid OpenAPI."""
    document = app.openapi()
    validate(document)
    documented: dict[str, Any] = document["paths"][path]["post"]["responses"]
    return documented


def test_a_handler_gets_its_admission() -> None:
    """Handlers hand work to queues: they need the lease and the tenant that was counted."""
    answer = send(guarded(publishing_api()))
    assert answer.json() == {"tenant": "acme", "sites": 3, "entries": 3}


def test_without_the_guard_a_handler_that_needs_it_fails_loudly() -> None:
    """A deployment that forgot the middleware must not circulate unguarded in silence."""
    with pytest.raises(AdmissionMissing, match=r"POST /circulate-document .*FanoutGuardMiddleware.*ROUTES"):
        send(publishing_api())


def test_a_route_that_is_not_guarded_has_no_admission() -> None:
    """A handler shared by guarded and unguarded routes asks for the optional one."""
    assert send(guarded(publishing_api()), "/preview").json() is True


def test_what_stands_in_the_scope_by_another_hand_is_no_admission() -> None:
    """Only the guard admits."""

    class Impostor:
        """Puts something of its own under the guard's name."""

        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            """Pretend."""
            scope["fanout_guard"] = {"sites": 3}
            await self.app(scope, receive, send)

    app = publishing_api()
    app.add_middleware(Impostor)
    with pytest.raises(AdmissionMissing):
        send(app)


def test_guarded_operations_document_every_refusal() -> None:
    """Client generators and their users learn of refusals from the document, not from production."""
    documented = responses(guarded(publishing_api()))

    assert set(documented) == {"200", "400", "413", "415", "422", "429", "503"}
    for status in set(documented) - {"200"}:
        schema = documented[status]["content"][PROBLEM_JSON]["schema"]
        assert schema == {"$ref": "#/components/schemas/FanoutGuardProblem"}
    assert "Retry-After" in documented["429"]["headers"]
    assert "Retry-After" in documented["503"]["headers"]


def test_fastapis_own_422_stays_beside_the_guards() -> None:
    """One status, two kinds of answer: a client tells them apart by the media type."""
    content = responses(guarded(publishing_api()))["422"]["content"]
    assert set(content) == {"application/json", PROBLEM_JSON}
    assert content["application/json"]["schema"]["$ref"].endswith("HTTPValidationError")


def test_the_words_for_a_422_name_the_refusal_too() -> None:
    """FastAPI's "Validation Error" alone hid the most frequent refusal from people who read the page."""
    app = guarded(publishing_api())
    words = [responses(app)["422"]["description"] for _ in range(2)]  # the document is made once, and read often
    refusal = "Too many sites for one circulation: split it as `chunks` and `fits_now` say."
    assert words == [f"Validation Error. Or: {refusal}"] * 2


def test_unguarded_operations_are_left_alone() -> None:
    """Documenting refusals that cannot happen misleads."""
    assert set(responses(guarded(publishing_api()), "/preview")) == {"200", "422"}


@pytest.mark.parametrize("status", [400, 403, 413, 429])
def test_the_documented_status_is_the_configured_one(status: int) -> None:
    """REJECT_STATUS moves the refusal; the document must move with it, and 422 is FastAPI's alone again."""
    app = guarded(publishing_api(), reject_status=status)
    documented = responses(app)

    assert "split it" in documented[str(status)]["description"]
    assert set(documented["422"]["content"]) == {"application/json"}
    assert send(app, sites=301).status_code == status


def test_unknown_tenants_are_documented_where_they_are_refused() -> None:
    """403 exists only where the configuration says so."""
    assert "403" in responses(guarded(publishing_api(), unknown_tenants="reject"))


def test_routes_with_parameters_and_routers_are_found() -> None:
    """The guard's route names its parameters as it likes; the application mounts its router where it likes."""
    app, router = FastAPI(), APIRouter(prefix="/v1/{tenant}")

    @router.post("/documents/{document:path}/circulate")
    async def circulate(tenant: str, document: str) -> None:
        """Circulate."""

    @router.post("/documents/{document}/archive")
    async def archive(tenant: str, document: str) -> None:
        """Archive."""

    app.include_router(router)
    document_guard(app, Settings(routes="POST /v1/{t}/documents/{d}/circulate", tenant="path:t", document="path:d"))

    assert "429" in responses(app, "/v1/{tenant}/documents/{document}/circulate")
    assert "429" not in responses(app, "/v1/{tenant}/documents/{document}/archive")


def test_a_mounted_application_is_documented_by_its_place() -> None:
    """The guard of the outer application sees the whole path, the mounted one's document only its own part."""
    app = publishing_api()
    document_guard(app, Settings(routes="POST /api/circulate-document"), mounted_at="/api")
    assert "429" in responses(app)


def test_what_the_application_documents_itself_stays() -> None:
    """Its own words for a status come first, and its other media types stay."""
    app = FastAPI()
    own = {"description": "Ours.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.post(PATH, responses={429: own})
    async def circulate() -> None:
        """Circulate."""

    document_guard(app, Settings())
    documented = responses(app)["429"]
    assert documented["description"] == "Ours."
    assert set(documented["content"]) == {"text/plain", PROBLEM_JSON}


def test_an_applications_own_problem_and_header_stay() -> None:
    """The guard's once took their place: an application may have problem documents and a Retry-After of its own."""
    schema = {"type": "object", "title": "Ours"}
    header = {"description": "Ours.", "schema": {"type": "string"}}
    own = {"description": "Ours.", "content": {PROBLEM_JSON: {"schema": schema}}, "headers": {"Retry-After": header}}
    app = FastAPI()

    @app.post(PATH, responses={429: own})
    async def circulate() -> None:
        """Circulate."""

    document_guard(app, Settings())
    documented = responses(app)
    assert documented["429"]["content"][PROBLEM_JSON]["schema"] == schema
    assert documented["429"]["headers"]["Retry-After"] == header
    assert documented["503"]["content"][PROBLEM_JSON]["schema"] != schema


def test_a_response_that_the_application_refers_to_stays_valid() -> None:
    """Beside a reference, content and headers made the document invalid."""
    app = FastAPI()

    @app.post(PATH, responses={429: {"$ref": "#/components/responses/Busy"}})
    async def circulate() -> None:
        """Circulate."""

    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        document.setdefault("components", {})["responses"] = {"Busy": {"description": "Busy."}}
        return document

    app.openapi = openapi  # type: ignore[method-assign]
    document_guard(app, Settings())
    documented = responses(app)
    assert documented["429"]["$ref"] == "#/components/responses/Busy"
    assert "content" in documented["503"]


def test_the_document_is_built_once() -> None:
    """FastAPI caches it; asking again must give the same, not grow it."""
    app = guarded(publishing_api())
    first = str(app.openapi())
    assert app.openapi() is app.openapi()
    assert str(app.openapi()) == first


@pytest.mark.parametrize("sites", [301, 250])
def test_refusals_are_what_the_schema_says(sites: int) -> None:
    """The schema is a promise: every member of a real refusal is in it."""
    app = guarded(publishing_api())
    send(app, sites=100)
    problem = send(app, sites=sites, first=100).json()

    assert set(PROBLEM_SCHEMA["required"]) <= set(problem) <= set(PROBLEM_SCHEMA["properties"])
