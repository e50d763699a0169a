"""Bytes and requests that look for a way through. See chaos/README.md."""
