"""What all tests share."""

pytest_plugins = ["tests.servers.postgres_fixtures", "tests.servers.rabbitmq_fixtures"]
