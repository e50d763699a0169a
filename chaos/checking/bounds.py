"""What a scenario measured beside the ledger."""

from chaos.checking.evidence import Evidence
from chaos.checking.finding import Finding, found


def judge_bounds(evidence: Evidence) -> Finding:
    """I15: each quantity that was measured is within its bound."""
    violations = [
        f"{one.what}: {one.value:.3g} {one.unit}, {one.at_most:g} are allowed"
        for one in evidence.measures
        if not one.value <= one.at_most
    ]
    return found(violations, exercised=len(evidence.measures), otherwise="nothing was measured beside the ledger")
