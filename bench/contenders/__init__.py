"""Who is compared: how each is started, with what settings."""
