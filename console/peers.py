"""What other processes of ours are asked for: their metrics, and the callbacks that they refused."""

from collections.abc import Sequence
from typing import Self


class Peers:
    """Asks the admin listeners at `addresses`; a token of ours lets it see refused callbacks."""

    def __init__(self, addresses: Sequence[str], token: str) -> None:
        self._addresses = tuple(addresses)
        self._token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None
