"""Refused callbacks, as an ingest node tells of them: to the command, and over its admin listener to the console."""

from msgspec import Struct


class RejectedRow(Struct, frozen=True, kw_only=True):
    """What is shown of a refused callback. `sign` tells only whether there is one."""

    id: int
    received_at: str
    reason: str
    sdk_app_id: int
    event_type: str | None
    task_id: str | None
    size: int
    tries: int
    sign: str | None


class Reverified(Struct, frozen=True, kw_only=True):
    """How many refused callbacks are authentic now, were let in, and remain; `refused`: why, by reason."""

    authentic: int
    let_in: int
    remaining: int
    refused: dict[str, int]
