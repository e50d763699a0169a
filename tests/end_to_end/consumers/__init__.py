"""Users' consumers, well-behaved and not. Each file is copied into the plugins folder of a deployment."""
