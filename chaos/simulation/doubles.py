"""What stands in the place of a thread and of the system's randomness."""

from random import Random


class NoStallWatch:
    """In the place of a thread that watches the event loop."""

    def __init__(self, _: object) -> None: ...

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class Tokens:
    """In the place of the module `secrets`."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def token_hex(self, count: int) -> str:
        """Return as many bytes in hexadecimal."""
        return self._rng.randbytes(count).hex()

    def randbits(self, count: int) -> int:
        """Return a number of so many bits."""
        return self._rng.getrandbits(count)
