"""Consumers of ours, written as a user would write them."""
