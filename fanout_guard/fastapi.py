"""For FastAPI: the admission as a dependency, and the guard's answers in the application's OpenAPI document.

    from fanout_guard.fastapi import current_admission, document_guard

    app = FastAPI()
    app.add_middleware(FanoutGuardMiddleware, guard=FanoutGuard())
    document_guard(app)

    @app.post("/circulate-document")
    async def circulate(
        body: Circulate, admission: Annotated[Admission, Depends(current_admission)]
    ) -> Receipt: ...

Needs the extra ``fastapi``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, TypeAlias

try:
    from fastapi import FastAPI, Request
except ModuleNotFoundError as error:
    missing = f"fanout_guard.fastapi needs {error.name}: pip install 'fanout-guard[fastapi]'"
    raise ModuleNotFoundError(missing, name=error.name) from error

from fanout_guard.admission import Admission
from fanout_guard.asgi.middleware import SCOPE_KEY
from fanout_guard.asgi.route import Routes
from fanout_guard.core.problem import MEDIA_TYPE
from fanout_guard.errors import FanoutGuardError
from fanout_guard.settings import Settings

__all__ = ["AdmissionMissing", "current_admission", "document_guard", "optional_admission"]

Json: TypeAlias = dict[str, Any]

PROBLEM_JSON = MEDIA_TYPE.decode()
SCHEMA_NAME = "FanoutGuardProblem"
VALIDATION_ERROR = "Validation Error"  # FastAPI's words for the 422 that it adds to an operation with a body


class AdmissionMissing(FanoutGuardError, RuntimeError):
    """Raised when a handler asks for the admission of a request that the guard did not decide on."""


def current_admission(request: Request) -> Admission:
    """The admission of this request, as a dependency: ``Annotated[Admission, Depends(current_admission)]``.

    Raises AdmissionMissing if there is none. Use ``optional_admission`` in a handler that must also run while the
    guard is off, or in shadow mode on a body that cannot be read.
    """
    admission = optional_admission(request)
    if admission is None:
        raise AdmissionMissing(
            f"{request.method} {request.url.path} was not decided on: add FanoutGuardMiddleware to the application and "
            "this route to FANOUT_GUARD_ROUTES, and check that FANOUT_GUARD_MODE is not off; if shadow mode may let "
            "unreadable bodies through, use optional_admission"
        )
    return admission


def optional_admission(request: Request) -> Admission | None:
    """The admission of this request, or None if the guard did not decide on it."""
    admission = request.scope.get(SCOPE_KEY)
    return admission if isinstance(admission, Admission) else None


def document_guard(app: FastAPI, settings: Settings | None = None, *, mounted_at: str = "") -> None:
    """Add the guard's refusals to every guarded operation of the application's OpenAPI document.

    ``settings`` default to the environment, as the middleware's do. If ``app`` is mounted below the guarded
    application, ``mounted_at`` is its path. What the application itself documents for the same statuses stays;
    FastAPI's own 422 names both answers. Raises ConfigurationError if the settings are wrong.
    """
    settings = Settings.from_env() if settings is None else settings
    guarded, responses = Routes(settings.routes), _responses(settings)
    generate: Callable[[], Json] = app.openapi

    def openapi() -> Json:
        document = generate()
        for operation in _operations(document, guarded, mounted_at):
            document.setdefault("components", {}).setdefault("schemas", {})[SCHEMA_NAME] = PROBLEM_SCHEMA
            for status, response in responses.items():
                _add(operation.setdefault("responses", {}), status, response)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _operations(document: Json, guarded: Routes, mounted_at: str) -> Iterator[Json]:
    for path, item in document.get("paths", {}).items():
        concrete = mounted_at + re.sub(r"\{[^}]*\}", "x", path)
        for method, operation in item.items():
            # A path item has members besides its operations ("parameters", "summary"): no route has such a method.
            if guarded.match({"method": method.upper(), "path": concrete}) is not None:
                yield operation


def _add(responses: Json, status: str, response: Json) -> None:
    own = responses.setdefault(status, {"description": response["description"]})
    if "$ref" in own:  # beside a reference there may be a description, and no more
        return
    for member in ("content", "headers"):
        if member in response:
            own[member] = {**response[member], **own.get(member, {})}
    if own.get("description") == VALIDATION_ERROR:
        own["description"] += f". Or: {response['description'].partition('. ')[2]}"


def _responses(settings: Settings) -> dict[str, Json]:
    """The refusals by status; where one status has several, its description names each."""
    reasons: dict[int, list[str]] = {}
    for status, reason in _refusals(settings):
        reasons.setdefault(status, []).append(reason)
    return {str(status): _response(status, reasons[status]) for status in sorted(reasons)}


def _refusals(settings: Settings) -> Iterator[tuple[int, str]]:
    yield settings.reject_status, "Too many sites for one circulation: split it as `chunks` and `fits_now` say."
    yield 400, "The circulation or its tenant cannot be read with certainty."
    if settings.unknown_tenants == "reject":
        yield 403, "The tenant is not known."
    yield 413, f"The body is longer than {settings.max_body_bytes} bytes."
    yield 415, "The body is encoded, is a form, or is not in UTF-8."
    yield 429, "Too many sites for now: try again after `Retry-After`."
    yield 503, "No capacity for the circulation right now: try again after `Retry-After`."


def _response(status: int, reasons: list[str]) -> Json:
    content = {PROBLEM_JSON: {"schema": {"$ref": f"#/components/schemas/{SCHEMA_NAME}"}}}
    response: Json = {"description": f"{HTTPStatus(status).phrase}. {' '.join(reasons)}", "content": content}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": _SECONDS}}
    return response


_COUNT: Json = {"type": "integer", "minimum": 0}
_SECONDS: Json = {"type": "integer", "minimum": 1}

PROBLEM_SCHEMA: Json = {
    "title": SCHEMA_NAME,
    "description": "Why a circulation was refused, and how to succeed. Members that do not apply are left out.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Names the kind of refusal."},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "An explanation for people."},
        "violated-policies": {
            "type": "array",
            "items": {"type": "string"},
            "description": (
                "Caps that refused: `circulation`, `document`, `rate-…`, `inflight`, `inflight-global`, or `outage`."
            ),
        },
        "limit": {**_COUNT, "description": "The cap."},
        "requested_sites": {**_COUNT, "description": "The entries of the circulation."},
        "excess": {**_COUNT, "description": "The entries over the cap."},
        "used": {**_COUNT, "description": "What counts under the cap already."},
        "fits_now": {**_COUNT, "description": "How many entries would be admitted now."},
        "chunks": {**_COUNT, "description": "How many circulations it takes, one after the other."},
        "chunk_wait": {**_COUNT, "description": "Seconds to leave between them."},
        "retry_after": {**_SECONDS, "description": "Seconds to wait before the same circulation is sent again."},
    },
}
