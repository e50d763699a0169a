"""Deployments for tests: prepared, not started."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.end_to_end.deployment import Deployment, distributed, embedded
from tests.servers.postgres import PostgresServer
from tests.servers.rabbitmq import RabbitMQServer


@pytest.fixture(scope="module", params=["embedded", "distributed"])
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Prepare a deployment of either kind for the tests of a module."""
    folder = tmp_path_factory.mktemp("deployment")
    with ExitStack() as stack:
        if request.param == "embedded":
            yield stack.enter_context(embedded(folder))
        else:
            rabbitmq: RabbitMQServer = request.getfixturevalue("rabbitmq")
            postgres: PostgresServer = request.getfixturevalue("postgres")
            yield stack.enter_context(distributed(folder, rabbitmq, postgres))


@pytest.fixture
def make_distributed(
    rabbitmq: RabbitMQServer, postgres: PostgresServer, tmp_path: Path
) -> Iterator[Callable[..., Deployment]]:
    """Prepare deployments over RabbitMQ and PostgreSQL, for one test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(distributed(tmp_path, rabbitmq, postgres, **settings))
