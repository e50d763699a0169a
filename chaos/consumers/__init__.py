"""Consumers of a user, for the pipelines that are broken here. Each file is copied into a folder of plugins."""
