"""The `embedded` transport: the promises of the AMQP one on a single host, kept by one SQLite file and no server."""
