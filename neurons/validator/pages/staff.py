"""Who may see the pages behind the sign-in."""

from __future__ import annotations

from neurons.miner.errors import RequestError, unavailable, unknown_model
from neurons.validator.gateway.keys import ApiKey, Role
from neurons.validator.pages.visit import Visit


def signed_in(visit: Visit, role: Role) -> ApiKey:
    """Return the key of who signed in; raises RequestError: 403 for anybody without this role, 503 while it isn't known
    whether the sign-in goes on.
    """
    if visit.unknown_session:
        raise no_ledger()
    if visit.staff is None or visit.staff.role is not role:
        raise RequestError(403, "authentication_error", f"sign in with the key of a {role.value}", code="not_signed_in")
    return visit.staff


def no_ledger() -> RequestError:
    """Return what is said while the ledger can't be read."""
    return unavailable("the ledger can't be read now: try again", retry_after=5, code="no_ledger")


def own_twin(visit: Visit, twin: str) -> ApiKey:
    """Return the doctor's key; raises RequestError (404) for a twin of somebody else's, as for one that isn't there."""
    key = signed_in(visit, Role.DOCTOR)
    if not key.may_ask(twin):
        raise unknown_model(twin)
    return key
