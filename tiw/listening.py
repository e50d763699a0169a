"""Open the listeners that the settings name."""

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

from tiw.errors import UsageError
from tiw.settings import Address

Listener = TypeVar("Listener")


@asynccontextmanager
async def listening(
    listener: AbstractAsyncContextManager[Listener], *, variable: str, address: Address
) -> AsyncIterator[Listener]:
    """Enter `listener`. Raises `UsageError` that names `variable` if its address cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            entered = await stack.enter_async_context(listener)
        except OSError as error:
            raise cannot_listen(error, variable=variable, address=address) from error
        yield entered


def cannot_listen(error: OSError, *, variable: str, address: Address) -> UsageError:
    """Return what to say of an address that cannot be had."""
    # uvloop's own words repeat the address; a host that cannot be resolved has no errno of the system's.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror
    return UsageError(f"{variable} is {address}, where nothing can listen ({reason}): choose another")
