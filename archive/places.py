"""Where archived files are kept: a place, which is a folder or a bucket, and what both promise."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from archive.naming import check_key

#: The file in every target that says: archives are kept here. Where it is missing, the target is not there.
MARKER_NAME = ".tiw-archive"
MARKER = b"Recordings are archived here. Do not delete this file: without it nothing more is written here.\n"

#: A place that moves no byte for so long is told to be away.
STALLED_AFTER_S = 180.0

#: Is called with how many bytes of a file are there.
OnProgress: TypeAlias = Callable[[int], None]
OnUploadId: TypeAlias = Callable[[str], Awaitable[None]]


Result = TypeVar("Result")


class PlaceError(Exception):
    """A place does not take or give a file. `reason` tells the user what to do; there is no secret in it.

    `is_full`: for want of space.
    """

    def __init__(self, reason: str, *, is_full: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_full = is_full


class NotStagedError(PlaceError):
    """The staged file is not there, or is not the one that was proved whole: it has to be fetched again."""


class NotPlacedError(PlaceError):
    """A file is not in the place, or is not the one that was placed there."""


class Place(Protocol):
    """Where files are kept. A key is a path below it, such as `1400000001/2026-11-30_880528_TASKID/manifest.json`.

    All raise `PlaceError`, which may pass if it is tried again later.
    """

    @property
    def name(self) -> str:
        """The place as a person writes it, without secrets."""

    def location(self, key: str) -> str:
        """Return where a key is, as a person writes it."""

    async def check(self, *, must_exist: bool = False) -> None:
        """Return if files can be placed. Prepares a place that was never used.

        `must_exist`: something was archived there before, so that a folder without its marker is not it but, say, where
        it should be mounted.
        """

    async def put_file(
        self,
        staged: Path,
        key: str,
        *,
        size: int,
        sha256: str,
        upload_id: str | None = None,
        on_upload_id: OnUploadId | None = None,
        on_progress: OnProgress | None = None,
    ) -> str:
        """Place a file that was proved to have this size and SHA-256; return its location once it is there, whole.

        The same call again does no harm: it goes on where it was cut off. `upload_id` is what `on_upload_id` was last
        called with for this file. The staged file may be moved away. Raises `NotStagedError` if it is not there and not
        in the place either.
        """

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> str:
        """Place a small file, instead of one that may be there; return its location. It is whole or not there."""

    def read(self, key: str) -> AsyncIterator[bytes]:
        """Yield the bytes of a file."""

    def read_range(self, key: str, begin: int, end: int, *, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a file from `begin` to before `end`, of a file that has `size` bytes in all.

        Nothing is read ahead, and nothing stays open for one who takes no more. Raises `NotPlacedError` if the file is
        not there, has another size, or becomes another one meanwhile.
        """

    async def size_of(self, key: str) -> int | None:
        """Return the size of a file in bytes, None if there is none."""

    def manifests(self) -> AsyncIterator[str]:
        """Yield the keys of all manifests."""

    async def abort(self, key: str, upload_id: str) -> None:
        """Forget an upload that nobody will go on with."""


class FolderTarget(Struct, frozen=True, kw_only=True):
    """A folder of this machine, or one that is mounted."""

    path: Path


class S3Target(Struct, frozen=True, kw_only=True):
    """A bucket, and what all keys in it begin with: empty, or without a slash at its ends."""

    bucket: str
    prefix: str = ""


class S3Settings(Struct, frozen=True, kw_only=True):
    """How a bucket is reached. Without an endpoint it is Amazon's of the region.

    `style`: `virtual` has the bucket in the host's name, as COS and Amazon want it; `path` in the path, as others do.
    """

    endpoint: str | None = None
    region: str | None = None
    style: Literal["virtual", "path"] = "virtual"
    access_key_id: str
    secret_access_key: str

    def __repr__(self) -> str:
        return f"S3Settings(endpoint={self.endpoint!r}, region={self.region!r}, style={self.style!r}, ...)"


#: Who knows a bucket by the host's name.
_VIRTUAL_HOSTS = (".amazonaws.com", ".myqcloud.com", ".tencentcos.cn", ".tencentcos.com")


def usual_style(endpoint: str | None) -> Literal["virtual", "path"]:
    """Return the style that an endpoint takes, as far as its name tells."""
    if endpoint is None:
        return "virtual"
    return "virtual" if (_split(endpoint).hostname or "").endswith(_VIRTUAL_HOSTS) else "path"


#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def parse_target(text: str) -> FolderTarget | S3Target:
    """Return the target that `/srv/classes` or `s3://bucket/prefix` names.

    Raises `ValueError` with a sentence for the user, which does not repeat what may be a secret.
    """
    if text.startswith("s3://"):
        return _parse_bucket(text.removeprefix("s3://"))
    if "://" in text:
        scheme = text.split("://", maxsplit=1)[0]
        raise ValueError(f"an archive is a folder such as /srv/classes or s3://bucket/prefix, not {scheme}://...")
    path = Path(text)
    if not path.is_absolute():
        raise ValueError("an archive is a folder by its whole path, such as /srv/classes, or s3://bucket/prefix")
    if "\0" in text or ".." in path.parts or path == Path(path.anchor):
        raise ValueError("an archive is a folder of its own, such as /srv/classes, without ..")
    return FolderTarget(path=path)


def _parse_bucket(text: str) -> S3Target:
    if "@" in text:
        raise ValueError("an archive in a bucket is s3://bucket/prefix; keys have settings of their own")
    bucket, _, prefix = text.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(
            "s3:// is followed by a bucket's name of 3 to 63 small letters, digits, dots and hyphens: s3://bucket/prefix"
        )
    prefix = prefix.strip("/")
    if prefix:
        if set(prefix) & set("?#%*"):
            raise ValueError("what follows the bucket in s3://bucket/prefix has no ?, #, % or * in it")
        try:
            check_key(prefix)
        except ValueError as error:
            raise ValueError(f"what follows the bucket in s3://bucket/prefix cannot be used: {error}") from None
    return S3Target(bucket=bucket, prefix=prefix)


def check_s3_settings(target: S3Target, s3: S3Settings | None) -> S3Settings:
    """Return the settings if a bucket can be reached with them. Raises `ValueError` with a sentence for the user."""
    if s3 is None or not s3.access_key_id or not s3.secret_access_key:
        raise ValueError("an archive in a bucket needs an access key's id and its secret")
    if s3.endpoint is None:
        if not s3.region:
            raise ValueError("an archive in a bucket needs an endpoint, or for Amazon's a region such as eu-central-1")
        return s3
    split = _split(s3.endpoint)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise ValueError("the endpoint of a bucket is an address such as https://cos.ap-guangzhou.myqcloud.com")
    if "@" in split.netloc or split.query or split.fragment or split.path not in ("", "/"):
        raise ValueError("the endpoint of a bucket is a host alone, such as https://cos.ap-guangzhou.myqcloud.com")
    if split.hostname.startswith(f"{target.bucket}."):
        raise ValueError(
            "the endpoint is without the bucket's name in front: "
            f"{split.scheme}://{split.netloc.removeprefix(f'{target.bucket}.')}"
        )
    if s3.style == "path" and split.hostname.endswith((".myqcloud.com", ".tencentcos.cn", ".tencentcos.com")):
        # Refused there since 2024 with PathStyleDomainForbidden: https://github.com/langgenius/dify/issues/2934
        raise ValueError("COS knows a bucket by the host's name only: the style has to be virtual")
    return s3


def _split(url: str) -> SplitResult:
    try:
        split = urlsplit(url)
        _ = split.port
    except ValueError:
        return urlsplit("")
    return split


async def unless_stalled(work: asyncio.Future[Result], moved: Callable[[], object], *, after_s: float) -> Result:
    """Return what `work` does. Raises `TimeoutError` once `moved` says the same for so long; the work goes on then."""
    before = moved()
    while not work.done():
        await asyncio.wait({work}, timeout=after_s)
        now = moved()
        if not work.done() and now == before:
            raise TimeoutError
        before = now
    return work.result()


def open_place(
    target: FolderTarget | S3Target, s3: S3Settings | None = None, *, min_free_bytes: int = 0
) -> AbstractAsyncContextManager[Place]:
    """Return the place of a target, for `async with`. It is not looked at before it is used.

    A folder's disk keeps `min_free_bytes`. Raises `ValueError` with a sentence for the user if the
    settings do not lead to a bucket, or what S3 takes is not installed.
    """
    if isinstance(target, FolderTarget):
        # Both ways are here and not above, because they take their values from this file.
        from archive.folder import FolderPlace  # noqa: PLC0415

        return FolderPlace(target, min_free_bytes=min_free_bytes)
    settings = check_s3_settings(target, s3)
    try:
        # A process without a bucket shall not carry the 25 MB of aiobotocore.
        from archive.s3 import S3Place  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in ("aiobotocore", "botocore"):
            raise
        raise ValueError("an archive in a bucket needs what S3 takes: install tiw-callbacks[s3]") from None
    return S3Place(target, settings)
