"""A key for those who have not chosen one yet: made once, for all processes that share the folder."""

import os
import secrets
from pathlib import Path

import msgspec
from msgspec import Struct

from ingest.keys import CallbackKeys, KeysError, parse_keys

FILE_NAME = "callback_keys.json"

#: The vendor's example of an SdkAppId.
SDK_APP_ID = 1400000001


class GeneratedKeys(Struct, frozen=True, kw_only=True):
    """The keys of `path`; `created` is True for the one caller that made the file, who may show them once."""

    keys: CallbackKeys
    path: Path
    created: bool


def generated_keys(folder: Path) -> GeneratedKeys:
    """Return the keys of `folder/callback_keys.json`, which is made if it is not there.

    Any number of processes may call this at once: one of them creates the file (32 random characters for SdkAppId
    1400000001, mode 0600, on disk before it has its name), and all return its keys. Raises `KeysError` if the
    folder cannot be written or the file cannot be used.
    """
    path = folder / FILE_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        created = not path.exists() and _create(path)
        content = path.read_bytes()
    except OSError as error:
        raise KeysError(
            f"no callback key can be kept in {folder} ({error.strerror}): make it writable or give the keys yourself"
        ) from error
    return GeneratedKeys(keys=parse_keys(content), path=path, created=created)


def _create(path: Path) -> bool:
    """Make the file, whole or not at all; False if another process was faster."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode({str(SDK_APP_ID): [secrets.token_hex(16)]}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename, a link never replaces: the first one wins.
        path.hardlink_to(draft)
    except FileExistsError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
