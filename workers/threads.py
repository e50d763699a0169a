"""Plain functions off the event loop.

Not a ThreadPoolExecutor: its threads are joined at interpreter exit, so that one hung handler would keep a worker
from ever stopping, and a hung thread keeps its place in the pool for good.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any


def run_in_thread(function: Callable[..., Any], *arguments: Any, name: str) -> "asyncio.Future[Any]":
    """Call `function` in a daemon thread of its own; the future has its result or its exception.

    Cancelling the future forgets the result; a thread cannot be interrupted and runs on.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function, *arguments)
        except BaseException as raised:  # noqa: BLE001 - handed on to whoever awaits the future
            error = raised
        if isinstance(error, StopIteration) or (error is not None and not isinstance(error, Exception)):
            # A future refuses StopIteration, and SystemExit would end the loop: a thread of its own can do neither.
            unusual, error = error, RuntimeError(f"the handler raised {type(error).__name__}")
            error.__cause__ = unusual
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop was closed between the check and the call: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
