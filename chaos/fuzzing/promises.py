"""What a target raises."""


class BrokenPromiseError(AssertionError):
    """Raised when an input makes the code break a promise; its text says which one. It quotes none of the input."""


def promise(holds: object, sentence: str) -> None:
    """Raise `BrokenPromiseError` with `sentence` unless it holds."""
    if not holds:
        raise BrokenPromiseError(sentence)
