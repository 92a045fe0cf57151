"""A guarded FastAPI application: the admission as a dependency, the refusals in its OpenAPI document.

Run it with ``uvicorn examples.fastapi_app:app`` and look at ``/docs``.
"""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from fanout_guard import Admission, FanoutGuard, FanoutGuardMiddleware
from fanout_guard.fastapi import current_admission, document_guard


class Circulation(BaseModel):
    """One document and the sites it goes to."""

    document_id: str
    document_headline: str = ""
    target_sites: list[str]


class Receipt(BaseModel):
    """What was circulated, and for whom it was counted."""

    tenant: str
    sites: int


app = FastAPI(title="Publishing API")
app.add_middleware(FanoutGuardMiddleware, guard=FanoutGuard())  # all settings from FANOUT_GUARD_… variables
document_guard(app)


@app.post("/circulate-document")
async def circulate_document(
    circulation: Circulation, admission: Annotated[Admission, Depends(current_admission)]
) -> Receipt:
    """Circulate; what is over a cap never gets here."""
    return Receipt(tenant=admission.tenant, sites=len(circulation.target_sites))
