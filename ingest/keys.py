"""The callback keys: which ones are accepted for which SdkAppId.

They are read anew when their file changes, and one is made where there are none.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Self, TypeAlias

import msgspec
import structlog
from msgspec import Struct

from schemas import NotStrictError, read_members

#: Accepted keys by SdkAppId; 0 stands for callbacks without SdkAppId.
CallbackKeys: TypeAlias = Mapping[int, tuple[str, ...]]

#: What the vendor's console takes: https://www.tencentcloud.com/document/product/1176/55569
MAX_CHARACTERS = 64

#: A shorter key can be found by trying: its MD5 is in every callback.
SAFE_CHARACTERS = 16

#: So is one that repeats itself.
SAFE_DISTINCT_CHARACTERS = 6

_DIGITS_AT_END = re.compile(r"[0-9]+\Z")
_SDK_APP_ID = re.compile(r"0|[1-9][0-9]{0,18}")
_keys_decoder = msgspec.json.Decoder(list[str])
_log = structlog.get_logger()


class KeysError(ValueError):
    """Raised when callback keys cannot be used. Its text names the SdkAppId and the remedy, never a key."""


def parse_keys(text: str | bytes) -> CallbackKeys:
    """Read `{"1400000001": ["current", "next"]}`: for each SdkAppId the keys that are accepted.

    Raises `KeysError` unless `text` is a JSON object of decimal SdkAppIds, none twice, each with a list of one or
    more keys of 1 to 64 characters. A weak one, see `weak_keys`, is accepted and warned about.
    """
    try:
        members = read_members(text if isinstance(text, bytes) else text.encode())
    except (NotStrictError, UnicodeEncodeError) as error:
        raise KeysError(f'the callback keys are not JSON like {{"1400000001": ["key"]}}: {error}') from None
    if not members:
        raise KeysError('the callback keys name no SdkAppId: give at least one, like {"1400000001": ["key"]}')
    keys = {_sdk_app_id(name): _app_keys(name, raw) for name, raw in members.items()}
    for weak in weak_keys(keys):
        _log.warning("callback_key_weak", sdk_app_id=weak.sdk_app_id, number=weak.number, reason=weak.reason)
    return keys


class WeakKey(Struct, frozen=True, kw_only=True):
    """A key that is accepted and should not be: the `number`th of its application, counted from 1, and why."""

    sdk_app_id: int
    number: int
    reason: str


def weak_keys(keys: CallbackKeys) -> list[WeakKey]:
    """Return the keys that are short or regular enough to be found by trying, or that lengthen another by digits.

    Sign is the MD5 of key and ExpireTime put together. Where "abc7" and "abc" are both accepted, the Sign of "abc7" for
    1588040109 is that of "abc" for 71588040109, in the year 4238: a callback seen once could be sent for ever.
    """
    known = {key for accepted in keys.values() for key in accepted}
    return [
        WeakKey(sdk_app_id=sdk_app_id, number=number, reason=reason)
        for sdk_app_id, accepted in keys.items()
        for number, key in enumerate(accepted, start=1)
        for reason in _weaknesses(key, known)
    ]


def _weaknesses(key: str, known: AbstractSet[str]) -> Iterator[str]:
    if len(key) < SAFE_CHARACTERS:
        yield f"shorter than {SAFE_CHARACTERS} characters"
    elif len(set(key)) < SAFE_DISTINCT_CHARACTERS:
        yield f"of fewer than {SAFE_DISTINCT_CHARACTERS} different characters"
    lengthened = _DIGITS_AT_END.search(key)
    if lengthened and any(key[:end] in known for end in range(max(lengthened.start(), 1), len(key))):
        yield "another key and digits behind it"


def _sdk_app_id(name: str) -> int:
    if not _SDK_APP_ID.fullmatch(name):
        raise KeysError("the callback keys name an SdkAppId that is not a decimal number: correct it")
    return int(name)


def _app_keys(app: str, raw: msgspec.Raw) -> tuple[str, ...]:
    try:
        keys = _keys_decoder.decode(raw)
    except msgspec.DecodeError:
        # Not chained: the decoder's error can hold a part of a key.
        raise KeysError(f'the callback keys of {app} are not a list of texts: write ["key"]') from None
    if not keys:
        raise KeysError(f"the list of callback keys of {app} is empty: give a key, or leave {app} out")
    for number, key in enumerate(keys, start=1):
        if not 1 <= len(key) <= MAX_CHARACTERS:
            raise KeysError(f"callback key {number} of {app} has {len(key)} characters: give it 1 to {MAX_CHARACTERS}")
    return tuple(keys)


#: How often the file is looked at.
CHECK_INTERVAL_S = 2.0

_Version: TypeAlias = tuple[int, int, int]


class KeyRing:
    """The callback keys that hold now.

    `KeyRing(keys)` never changes. `KeyRing.of_file(path)` reads `path` at once and, while it is entered, again
    whenever the file changes or is replaced. A file that cannot be used leaves the last good keys in force, and
    is logged once per change.
    """

    def __init__(self, keys: CallbackKeys) -> None:
        self.current = keys
        self._path: Path | None = None
        self._seen: _Version | None = None
        self._watcher: asyncio.Task[None] | None = None

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Read the keys of `path`. Raises `KeysError` if it cannot be read or used."""
        seen = _version(path)
        ring = cls(_read(path))
        ring._path = path
        ring._seen = seen
        return ring

    async def __aenter__(self) -> Self:
        if self._path is not None:
            self._watcher = asyncio.create_task(self._watch(self._path), name="callback keys")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])

    async def _watch(self, path: Path) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_S)
            # In a thread: a mounted folder may be slow to answer.
            version = await asyncio.to_thread(_version, path)
            if version == self._seen:
                continue
            self._seen = version
            try:
                self.current = await asyncio.to_thread(_read, path)
            except KeysError as error:
                _log.error("callback_keys_not_changed", error=str(error), remedy="correct the file")
            else:
                _log.info("callback_keys_changed", sdk_app_ids=sorted(self.current))


def _version(path: Path) -> _Version | None:
    try:
        stat = os.stat(path)  # noqa: PTH116 - follows the links by which mounted secrets are swapped
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> CallbackKeys:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KeysError(f"the file of callback keys, {path}, cannot be read: {error.strerror}") from error
    return parse_keys(content)


GENERATED_KEYS_FILE = "callback_keys.json"

#: The vendor's example of an SdkAppId.
GENERATED_SDK_APP_ID = 1400000001


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
    path = folder / GENERATED_KEYS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        created = not path.exists() and _create(path)
        content = path.read_bytes()
    except OSError as error:
        raise KeysError(
            f"no callback key can be kept in {folder} ({error.strerror}): make it writable or give the keys yourself"
        ) from error
    return GeneratedKeys(keys=parse_keys(content), path=path, created=created)


def write_keys(path: Path, keys: CallbackKeys) -> None:
    """Put `keys` in the place of what the file has, whole or not at all; owner and mode stay. Raises `KeysError`."""
    draft = _draft_name(path)
    try:
        before = path.stat() if path.exists() else None
        _write(draft, keys)
        if before is not None:
            os.chmod(draft, before.st_mode & 0o777)  # noqa: PTH101 - as the line below
            os.chown(draft, before.st_uid, before.st_gid)
        draft.replace(path)
        _sync(path.parent)
    except OSError as error:
        # A file that is mounted by itself cannot be replaced.
        raise KeysError(f"{path} cannot be written ({error.strerror}): change it where it comes from") from error
    finally:
        draft.unlink(missing_ok=True)


def new_key() -> str:
    """Return a random key of 32 characters."""
    return secrets.token_hex(16)


def _draft_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")


def _write(path: Path, keys: CallbackKeys) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode({str(app): accepted for app, accepted in keys.items()}) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _create(path: Path) -> bool:
    """Make the file, whole or not at all; False if another process was faster."""
    draft = _draft_name(path)
    try:
        _write(draft, {GENERATED_SDK_APP_ID: (new_key(),)})
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
