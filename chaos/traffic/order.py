"""What the sending process is told."""

from msgspec import Struct


class Order(Struct, frozen=True, kw_only=True):
    """Whom to send to, what and how fast; `rate` None: `concurrency` at a time. `ledger` is the file to write."""

    addresses: tuple[str, ...]
    sdk_app_id: int
    key: str
    seed: int
    rate: float | None
    concurrency: int
    duplicates: float
    forged: float
    body_bytes: int
    ledger: str
