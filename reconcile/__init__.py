"""Finding recordings, and what became of them, where callbacks are missing; confirming those that came."""

from reconcile.registering import (
    MAX_BODY_BYTES,
    REGISTER_PATH,
    RegisterListener,
    RegisterRefusal,
    Registration,
    parse_registration,
    register,
)
from reconcile.service import ReconcileConfig, Reconciler, Report, SharedLimiter
from vendor_api import explain_failure, explain_pause

__all__ = [
    "MAX_BODY_BYTES",
    "REGISTER_PATH",
    "ReconcileConfig",
    "Reconciler",
    "RegisterListener",
    "RegisterRefusal",
    "Registration",
    "Report",
    "SharedLimiter",
    "explain_failure",
    "explain_pause",
    "parse_registration",
    "register",
]
