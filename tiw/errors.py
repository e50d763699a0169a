"""How a command says that it did not do what it was asked."""


class UsageError(Exception):
    """Raised when what was asked for cannot be done as asked; ends with exit code 2."""


class FailedError(Exception):
    """Raised when what was asked for is absent or failed; ends with exit code 1."""
