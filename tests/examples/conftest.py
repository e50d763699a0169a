"""An endpoint for every test that asks for one."""

from collections.abc import AsyncIterator

import pytest

from tests.examples.endpoint import Endpoint, run_endpoint


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with run_endpoint() as running:
        yield running
