"""What can go wrong in a measurement."""


class BenchError(Exception):
    """Raised when nothing can be measured; the text says what to do."""


class VoidRoundError(BenchError):
    """Raised when one run of one contender does not count: something was lost, refused or not ready."""


class UnknownNameError(BenchError):
    """Raised when there is no comparison of that name."""
