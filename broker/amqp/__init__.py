"""The `amqp` transport: RabbitMQ 3.10 to 4, one node or a cluster. Whoever opens it imports `broker.amqp.transport`."""
