"""The publishing API in FastAPI."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from fanout_guard import Admission
from fanout_guard.fastapi import current_admission, document_guard
from tests.integrations.apps.common import go_on, parts, record, status
from tests.integrations.apps.layers import LAYERS


class Circulate(BaseModel):
    """The request of the story."""

    document_id: str
    document_headline: str = ""
    target_sites: list[str]


app = FastAPI(middleware=LAYERS)


@app.post("/circulate-document")
async def circulate(body: Circulate, admission: Annotated[Admission, Depends(current_admission)]) -> dict[str, Any]:
    """Circulate, in FastAPI."""
    return record(admission, body.target_sites)


@app.post("/circulate-streaming")
async def stream() -> StreamingResponse:
    """Circulate and tell of it bit by bit."""
    return StreamingResponse(parts(), media_type="text/plain")


@app.get("/proceed")
async def proceed() -> dict[str, Any]:
    """Let the stream go on."""
    go_on.set()
    return {}


@app.get("/health")
async def health() -> dict[str, Any]:
    """Say which run this is."""
    return status()


document_guard(app)
