"""Faults, hostile input and crashes, with accounting of every callback that was accepted. See chaos/README.md."""
