"""An event loop that never turns: for protocols whose work is done when they are called."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StandingLoop(asyncio.AbstractEventLoop):
    """Runs what never waits. Making a real loop takes ten times as long."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what `coroutine` returns. Raises RuntimeError if it waits for something."""
        asyncio._set_running_loop(self)  # noqa: SLF001 - made for event loops: it is in asyncio's __all__
        try:
            coroutine.send(None)
        except StopIteration as ended:
            result: T = ended.value
            return result
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001 - see above
        coroutine.close()
        raise RuntimeError("it waits for something, and nothing happens here")

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future, which nobody can wait for."""
        return asyncio.Future(loop=self)

    def time(self) -> float:
        """Stand still."""
        return 0.0

    def get_debug(self) -> bool:
        """Say no."""
        return False
