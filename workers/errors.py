"""Errors of the workers package.

WorkersError
├── DefinitionError   a consumer is not written as it must be
└── LoadError         a user's module cannot be loaded
"""


class WorkersError(Exception):
    """Root of this package's errors; the text says what to change."""


class DefinitionError(WorkersError, TypeError):
    """Raised when `@consumer` stands on a function, or has options, that cannot work."""


class LoadError(WorkersError):
    """Raised when what TIW_CONSUMERS names cannot be loaded."""
