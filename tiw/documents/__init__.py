"""What machines read about the product: OpenAPI, AsyncAPI, JSON Schema."""
