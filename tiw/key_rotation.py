"""A key of the vendor's is replaced while callbacks come in: accept both, set the new one, wait, retire the old one.

Each step can be repeated, and what was done is in a file: a rotation that was broken off goes on where it was.
"""

import contextlib
import os
import time
from enum import Enum
from pathlib import Path

import msgspec
from msgspec import Struct

from tiw.settings import FailedError
from tiw.vendor import digest, number_of

#: In TIW_DATA_DIR: digests and times, no key.
ROTATIONS_FILE = "vendor_key_rotations.json"


class Rotation(Struct, frozen=True, kw_only=True):
    """What was done so far: `new` and `old` are digests; `old` is None where the vendor had no key of ours."""

    new: str
    old: str | None
    set_at: float | None = None


class Step(Enum):
    """What is to be done next."""

    BEGIN = "begin"
    SET = "set"
    WAIT = "wait"
    RETIRE = "retire"
    FOREIGN = "foreign"


def next_step(
    rotation: Rotation | None, accepted: tuple[str, ...], theirs: str, *, wait_s: float, now_s: float
) -> Step:
    """Return the next step of a rotation, whatever was done and broken off before.

    `accepted` are our keys, `theirs` is the one that the vendor signs with. FOREIGN: the vendor was given another key
    meanwhile, by somebody else.
    """
    if rotation is None or _number(rotation.new, accepted) is None:
        # Begun, but the key did not get as far as its file, or somebody retired it.
        return Step.BEGIN
    if digest(theirs) != rotation.new:
        return Step.SET if rotation.set_at is None else Step.FOREIGN
    return Step.WAIT if rotation.set_at is None or now_s < rotation.set_at + wait_s else Step.RETIRE


def key_to_retire(rotation: Rotation, accepted: tuple[str, ...]) -> int | None:
    """Return the number of the old key; None if it is not accepted any more."""
    return None if rotation.old is None else _number(rotation.old, accepted)


def new_key_of(rotation: Rotation, accepted: tuple[str, ...]) -> str:
    """Return the new key itself, which is one of `accepted`."""
    return next(key for key in accepted if digest(key) == rotation.new)


def begin(new: str, theirs: str, accepted: tuple[str, ...]) -> Rotation:
    """Return the rotation from the vendor's key of now to `new`."""
    return Rotation(new=digest(new), old=digest(theirs) if number_of(theirs, accepted) is not None else None)


def _number(wanted: str, accepted: tuple[str, ...]) -> int | None:
    return next((number for number, key in enumerate(accepted, start=1) if digest(key) == wanted), None)


_decoder = msgspec.json.Decoder(dict[int, Rotation])


class Rotations:
    """The rotations that are under way, by application, in their file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ROTATIONS_FILE

    def find(self, app: int) -> Rotation | None:
        """Return the rotation of an application, if one is under way. Raises `FailedError` if the file is no use."""
        return self._read().get(app)

    def keep(self, app: int, rotation: Rotation | None) -> None:
        """Note how far a rotation has come; None: it is over. On disk when this returns. Raises `FailedError`."""
        rotations = self._read()
        rotations.pop(app, None)
        if rotation is not None:
            rotations[app] = rotation
        draft = self.path.with_suffix(f".{os.getpid()}.{time.monotonic_ns()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(msgspec.json.encode(rotations))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise FailedError(f"{self.path} cannot be written: {error.strerror}") from error

    def _read(self) -> dict[int, Rotation]:
        try:
            return _decoder.decode(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FailedError(f"{self.path} cannot be read: {error.strerror}") from error
        except msgspec.DecodeError:
            raise FailedError(f"{self.path} is damaged: move it away, and the rotation begins anew") from None
