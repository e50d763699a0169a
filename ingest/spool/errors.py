"""Errors of the spool."""


class SpoolError(Exception):
    """Raised when the spool cannot keep a callback, or cannot be used at all; the text says what to do."""
