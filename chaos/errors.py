"""What can go wrong with the harness itself. None of it says anything about the pipeline."""


class ChaosError(Exception):
    """Raised when a scenario could not be played to its end; the text says why."""


class UnknownNameError(ChaosError):
    """Raised when a name that was asked for is none of ours."""
