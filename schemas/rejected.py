"""Refused callbacks, as an ingest node tells of them: to the command, and over its admin listener to the console."""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

#: As far as every reader of JSON counts: https://www.rfc-editor.org/rfc/rfc8259#section-6
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]


class RejectedRow(Struct, frozen=True, kw_only=True):
    """What is shown of a refused callback. `sign` tells only whether there is one."""

    id: Count
    received_at: str
    reason: str
    sdk_app_id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
    event_type: str | None
    task_id: str | None
    size: Count
    tries: Count
    sign: str | None


class Reverified(Struct, frozen=True, kw_only=True):
    """How many refused callbacks are authentic now, were let in, and remain; `refused`: why, by reason."""

    authentic: Count
    let_in: Count
    remaining: Count
    refused: dict[str, Count]
