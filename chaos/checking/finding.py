"""What the checker says of one invariant."""

from collections.abc import Callable, Sequence
from enum import StrEnum

from msgspec import Struct

from chaos.checking.evidence import Evidence

#: As many cases are named; the count tells of all.
_NAMED = 5


class Judgement(StrEnum):
    """Satisfied only with evidence: what was not exercised is unchecked."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNCHECKED = "unchecked"


class Finding(Struct, frozen=True, kw_only=True):
    """A judgement. `exercised` counts what could have violated the invariant, `violations` what did.

    `text` says why it is unchecked, or names the first violations.
    """

    judgement: Judgement
    exercised: int = 0
    violations: int = 0
    text: str = ""


class Invariant(Struct, frozen=True, kw_only=True):
    """A promise: `number` names it for ever, `judge` decides from the evidence alone."""

    number: str
    sentence: str
    judge: Callable[[Evidence], Finding]


def unchecked(reason: str) -> Finding:
    """Say that there is no evidence."""
    return Finding(judgement=Judgement.UNCHECKED, text=reason)


def found(violations: Sequence[str], *, exercised: int, otherwise: str) -> Finding:
    """Judge: violated if there are `violations`; unchecked, for the reason `otherwise`, if nothing was exercised."""
    if violations:
        named = "; ".join(violations[:_NAMED]) + ("; ..." if len(violations) > _NAMED else "")
        return Finding(judgement=Judgement.VIOLATED, exercised=exercised, violations=len(violations), text=named)
    if not exercised:
        return unchecked(otherwise)
    return Finding(judgement=Judgement.SATISFIED, exercised=exercised)
