"""What can go wrong: what the store raises, and what may become of an error of a driver.

StoreError
├── StoreUnavailableError   the database does not answer now; the same call may succeed later
└── SchemaMismatchError     the database has no tables, older or too new ones; waiting or `tiw migrate` mends it
"""

from enum import Enum, auto


class StoreError(Exception):
    """Raised when the store cannot do what was asked; root of this package's errors."""


class StoreUnavailableError(StoreError):
    """Raised when the database cannot be reached, is busy beyond patience, full or broken.

    Nothing was changed, or all of it was: every operation is one transaction and may be repeated.
    """


class SchemaMismatchError(StoreError):
    """Raised when the tables are not those that this version works with; says which way and what to do."""


class Failure(Enum):
    """What to do about an error of a driver."""

    AWAY = auto()
    REPEAT = auto()
    NO_SCHEMA = auto()
    DEFECT = auto()
