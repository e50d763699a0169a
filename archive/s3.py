"""A bucket as the place of an archive: S3 as Amazon, Tencent Cloud's COS and many servers speak it.

Large files go up in parts, each a slice of the staged file, so that none is ever in memory; what is there already is
asked for, so that an upload goes on where it was cut off.
"""

import asyncio
import gzip
import hashlib
import io
import mimetypes
import os
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import AsyncExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from aiohttp import ClientError as ConnectionFault
from aiohttp.abc import AbstractResolver
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import JSONFileLoader, Loader
from fastcrc import crc64
from msgspec import Struct

from archive.naming import MANIFEST_NAME, check_key
from archive.places import (
    MARKER,
    MARKER_NAME,
    STALLED_AFTER_S,
    NotPlacedError,
    NotStagedError,
    OnProgress,
    OnUploadId,
    PlaceError,
    S3Settings,
    S3Target,
    unless_stalled,
)

if TYPE_CHECKING:
    from types_aiobotocore_s3.client import S3Client
    from types_aiobotocore_s3.type_defs import CompletedPartTypeDef

_MIB = 1024 * 1024
#: What is read at once. Four files are sent at the same time, and each has some of these.
_BLOCK = 64 * 1024
#: Smaller files go up at once; larger ones in parts of this size, or larger for want of numbers.
PART_SIZE_BYTES: Final = 16 * _MIB
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MAX_PARTS: Final = 10_000
#: Where there is no region, something has to be signed; servers that have none take this.
_ANY_REGION = "us-east-1"
_CONNECTIONS = 32
_CONNECT_S = 10.0
#: For the answer, once everything is sent; joining the parts of a large file takes a server a while.
_ANSWER_S = 90.0
_ATTEMPTS = 3
_NOT_FOUND = 404
_FORBIDDEN = 403
_NO_SUCH_RANGE = 416

#: What a refusal means, and what is to be done.
_REMEDIES: dict[str, str] = {
    "AccessDenied": "the access key may not do this: allow it to list the bucket, and to get, put and abort in it",
    "AccountProblem": "the account is blocked or in arrears: look into the provider's console",
    "AllAccessDisabled": "the account is blocked: look into the provider's console",
    "UnavailableAccount": "the account is in arrears: pay, then files are placed again",
    "InvalidAccessKeyId": "the access key's id is unknown there: correct it",
    "SignatureDoesNotMatch": "the secret does not belong to the access key, or the region is wrong: correct it",
    "AuthorizationHeaderMalformed": "the region is wrong: set the bucket's",
    "IllegalLocationConstraintException": "the region is wrong: set the bucket's",
    "PermanentRedirect": "the bucket is elsewhere: set its endpoint and region",
    "TemporaryRedirect": "the bucket is elsewhere: set its endpoint and region",
    "NoSuchKey": "there is no such file",
    "NoSuchBucket": "there is no such bucket: create it, or correct its name, endpoint and region",
    "PathStyleDomainForbidden": "this server wants the bucket in the host's name: set the style to virtual",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "SlowDown": "the server is busy: it is tried again later",
    "ServiceUnavailable": "the server is busy: it is tried again later",
    "RequestLimitExceeded": "the server is busy: it is tried again later",
    "InternalError": "the server has failed: it is tried again later",
    "RequestTimeout": "the upload was too slow for the server: it is tried again later",
    "BadDigest": "a part was damaged on its way: it is sent again",
    "InvalidDigest": "a part was damaged on its way: it is sent again",
    "InvalidPart": "the server has lost a part of the upload: it begins anew",
    "InvalidPartOrder": "the server has lost a part of the upload: it begins anew",
    "NoSuchUpload": "the server has lost the upload: it begins anew",
    "EntityTooLarge": "the file is larger than the server takes",
    "InvalidObjectState": "the file lies in a class of storage from which it has to be restored first",
    "KMS.DisabledException": "the key that the bucket encrypts with is disabled: enable it",
}
#: How servers say that there is no space: by several standards and none.
_FULL_CODES = {
    "QuotaExceeded",
    "InsufficientCapacity",
    "XMinioStorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "StorageFull",
}
_FULL_STATUS = 507
#: What a status means where there is no code, as after HEAD.
_STATUSES: dict[int, str] = {
    301: "PermanentRedirect",
    307: "TemporaryRedirect",
    403: "AccessDenied",
    500: "InternalError",
    503: "SlowDown",
}
_BEGIN_ANEW = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}

Result = TypeVar("Result")


class _RefusedError(PlaceError):
    """A refusal whose code matters here."""

    def __init__(self, reason: str, *, code: str, status: int, is_full: bool) -> None:
        super().__init__(reason, is_full=is_full)
        self.code = code
        self.status = status


class _Wanted(Struct, frozen=True, kw_only=True):
    """A file on its way up: the open staged one, the object's name, and who wants to know of it."""

    file: int
    name: str
    size: int
    sha256: str
    on_upload_id: OnUploadId | None
    on_progress: OnProgress | None

    def tell(self, size: int) -> None:
        if self.on_progress is not None:
            self.on_progress(size)


class _Proof:
    """What the bytes of a file add up to while its slices are read in order, and the digests of each."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._block = memoryview(bytearray(_BLOCK))
        self.crc64 = 0

    def add(self, part: "_Slice", *, is_signed: bool) -> bytes:
        """Read a slice; return its MD5.

        If its bytes are signed, as they are where no TLS keeps them from being changed, it gets the SHA-256 for that.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        signed = hashlib.sha256()
        while length := part.readinto(self._block):
            block = self._block[:length]
            md5.update(block)
            self._sha256.update(block)
            self.crc64 = crc64.xz(block, self.crc64)
            if is_signed:
                signed.update(block)
        part.seek(0)
        if is_signed:
            part.sha256 = signed.hexdigest()
        return md5.digest()

    def check(self, sha256: str) -> None:
        """Raise `NotStagedError` if this is not the file that was proved whole."""
        if self._sha256.hexdigest() != sha256:
            raise NotStagedError("the staged file is not what was fetched any more: look after the staging disk")


class _Slice(io.RawIOBase):
    """A part of an open file as a body. What it gives is read by `pread`: any number share one file."""

    def __init__(self, file: int, begin: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._begin = begin
        self._size = size
        self._position = 0
        #: How much was read in all, again and again.
        self.moved = 0
        #: In hex, None while nobody has read all of it.
        self.sha256: str | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        rest = max(0, self._size - self._position)
        wanted = rest if size is None or size < 0 else min(size, rest)
        data = os.pread(self._file, wanted, self._begin + self._position)
        self._position += len(data)
        self.moved += len(data)
        return data

    def readinto(self, block: memoryview, /) -> int:  # type: ignore[override]
        wanted = min(len(block), max(0, self._size - self._position))
        length = os.preadv(self._file, [block[:wanted]], self._begin + self._position) if wanted else 0
        self._position += length
        self.moved += length
        return length

    def __len__(self) -> int:
        return self._size


class S3Place:
    """See `Place`. An async context manager.

    Nothing is taken from the environment but a certificate authority's (AWS_CA_BUNDLE): no keys, no profile, no proxy.
    `attempts`: how often a request is made before its failure is told.
    """

    def __init__(
        self,
        target: S3Target,
        settings: S3Settings,
        *,
        attempts: int = _ATTEMPTS,
        part_size_bytes: int = PART_SIZE_BYTES,
        stalled_after_s: float = STALLED_AFTER_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._bucket = target.bucket
        self._prefix = f"{target.prefix}/" if target.prefix else ""
        self._settings = settings
        self._is_plain = (settings.endpoint or "").startswith("http://")
        self._part_size_bytes = part_size_bytes
        self._stalled_after_s = stalled_after_s
        self._config = AioConfig(
            connector_args=None if resolver is None else {"resolver": resolver},
            s3={"addressing_style": settings.style},
            signature_version="s3v4",
            # The checksums that botocore adds by default come in a form that COS and others refuse:
            # https://github.com/boto/boto3/issues/4392
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=_CONNECTIONS,
            connect_timeout=_CONNECT_S,
            read_timeout=_ANSWER_S,
            tcp_keepalive=True,
            proxies={},
            ignore_configured_endpoint_urls=True,
        )
        self._stack = AsyncExitStack()
        self._opened: S3Client | None = None
        self._is_writable = False

    async def __aenter__(self) -> Self:
        self._opened = await self._stack.enter_async_context(
            _session().create_client(
                "s3",
                endpoint_url=self._settings.endpoint,
                region_name=self._settings.region or _ANY_REGION,
                aws_access_key_id=self._settings.access_key_id,
                aws_secret_access_key=self._settings.secret_access_key,
                # None: as botocore does by itself. Over plain HTTP nobody shows a certificate, and those of all
                # authorities would take a megabyte.
                verify=False if self._is_plain else None,
                config=self._config,
            )
        )
        self._client.meta.events.register("before-send.s3", _without_expect)
        self._client.meta.events.register("choose-signer.s3", lambda **_: _SLICE_SIGNER)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()
        # The connections close in the next round of the loop, which may be about to end:
        # https://docs.aiohttp.org/en/stable/client_advanced.html#graceful-shutdown
        await asyncio.sleep(0)

    @property
    def name(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def location(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"

    @property
    def _client(self) -> "S3Client":
        if self._opened is None:
            raise RuntimeError("the place is not open")
        return self._opened

    def _key(self, key: str) -> str:
        try:
            check_key(key)
        except ValueError as error:
            raise PlaceError(str(error)) from None
        return f"{self._prefix}{key}"

    async def check(self, *, must_exist: bool = False) -> None:  # noqa: ARG002 - a bucket is never made
        """See `Place`. Writes a small file, the first time and after a failure; else it asks for that."""
        key = f"{self._prefix}{MARKER_NAME}"
        if self._is_writable:
            self._is_writable = False
            await self._ask(self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1))
        else:
            await self._put(key, MARKER, "text/plain")
            await self._ask(self._client.list_objects_v2(Bucket=self._bucket, Prefix=key, MaxKeys=1))
        self._is_writable = True

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
        """See `Place`. The object has the SHA-256 in its metadata, by which it is known when it is placed again."""
        name = self._key(key)
        try:
            file = os.open(staged, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            if await self._is_there(name, size, sha256):
                return self.location(key)
            raise NotStagedError(f"the staged file cannot be read ({error.strerror}): fetch it again") from None
        try:
            found = os.fstat(file).st_size
            if found != size:
                raise NotStagedError(f"the staged file has {found} bytes instead of {size}")
            if await self._is_there(name, size, sha256):
                return self.location(key)
            wanted = _Wanted(
                file=file, name=name, size=size, sha256=sha256, on_upload_id=on_upload_id, on_progress=on_progress
            )
            try:
                crc = await self._upload(wanted, upload_id)
            except _RefusedError as error:
                if error.code not in _BEGIN_ANEW:
                    raise
                # A server that joins the parts and then drops the connection has done all: there is no upload then.
                if await self._is_there(name, size, sha256):
                    return self.location(key)
                crc = await self._upload(wanted, None)
            await self._verify(name, size, crc)
        finally:
            os.close(file)
        return self.location(key)

    async def put_bytes(self, key: str, data: bytes, content_type: str) -> str:
        await self._put(self._key(key), data, content_type)
        return self.location(key)

    async def read(self, key: str) -> AsyncIterator[bytes]:
        answer = await self._ask(self._client.get_object(Bucket=self._bucket, Key=self._key(key)))
        body = answer["Body"]
        try:
            while block := await self._ask(body.read(_BLOCK)):
                yield block
        finally:
            body.close()

    async def read_range(self, key: str, begin: int, end: int, *, size: int) -> AsyncGenerator[bytes, None]:
        if begin >= end:
            return
        try:
            answer = await self._ask(
                self._client.get_object(Bucket=self._bucket, Key=self._key(key), Range=f"bytes={begin}-{end - 1}")
            )
        except _RefusedError as error:
            if error.status == _NOT_FOUND and error.code != "NoSuchBucket":
                raise NotPlacedError(f"{self.location(key)} is not there") from None
            if error.status == _NO_SUCH_RANGE:
                raise NotPlacedError(f"{self.location(key)} has not {size} bytes") from None
            raise
        # Closed also if nobody takes more: the rest of the answer is never read then.
        body = answer["Body"]
        try:
            found = answer.get("ContentRange", "")
            if found != f"bytes {begin}-{end - 1}/{size}":
                raise NotPlacedError(f"{self.location(key)} has not {size} bytes, or the server knows no ranges")
            while block := await self._ask(body.read(_BLOCK)):
                begin += len(block)
                yield block
        finally:
            body.close()
        if begin != end:
            raise PlaceError(f"{self.name} has given less than it said: try again")

    async def size_of(self, key: str) -> int | None:
        try:
            answer = await self._ask(self._client.head_object(Bucket=self._bucket, Key=self._key(key)))
        except _RefusedError as error:
            if error.status == _NOT_FOUND and error.code != "NoSuchBucket":
                return None
            raise
        return answer["ContentLength"]

    async def manifests(self) -> AsyncIterator[str]:
        token = ""
        while True:
            more = {"ContinuationToken": token} if token else {}
            answer = await self._ask(
                self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, **more)  # type: ignore[arg-type]
            )
            for each in answer.get("Contents", ()):
                key = each["Key"].removeprefix(self._prefix)
                if key.endswith(f"/{MANIFEST_NAME}"):
                    yield key
            token = answer.get("NextContinuationToken", "")
            if not token:
                return

    async def abort(self, key: str, upload_id: str) -> None:
        await self._abort(self._key(key), upload_id)

    async def _abort(self, name: str, upload_id: str) -> None:
        try:
            await self._ask(self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload_id))
        except _RefusedError as error:
            if error.status != _NOT_FOUND:
                raise

    async def _put(self, name: str, data: bytes, content_type: str) -> None:
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        await self._ask(
            self._client.put_object(
                Bucket=self._bucket, Key=name, Body=data, ContentType=content_type, ContentMD5=_base64(md5)
            )
        )

    async def _upload(self, wanted: _Wanted, upload_id: str | None) -> int:
        """Send a file, or what is not there of it yet; return its CRC-64/XZ."""
        part_size, proof = self._part_size_bytes, _Proof()
        if wanted.size <= part_size:
            body = _Slice(wanted.file, 0, wanted.size)
            md5 = await asyncio.to_thread(proof.add, body, is_signed=self._is_plain)
            proof.check(wanted.sha256)
            request = self._client.put_object(
                Bucket=self._bucket,
                Key=wanted.name,
                Body=body,
                ContentLength=wanted.size,
                ContentMD5=_base64(md5),
                ContentType=_content_type(wanted.name),
                Metadata={"sha256": wanted.sha256},
            )
            await self._ask(request, body)
            wanted.tell(wanted.size)
            return proof.crc64
        there: dict[int, str] = {}
        if upload_id is None:
            upload_id = await self._begin(wanted)
        else:
            there = await self._parts_there(wanted.name, upload_id)
        # As many whole MiB as let the file have no more parts than may be; the same each time.
        part_size = max(part_size, -(-wanted.size // (_MAX_PARTS * _MIB)) * _MIB)
        parts: list[CompletedPartTypeDef] = []
        for number, begin in enumerate(range(0, wanted.size, part_size), start=1):
            part = _Slice(wanted.file, begin, min(part_size, wanted.size - begin))
            md5 = await asyncio.to_thread(proof.add, part, is_signed=self._is_plain)
            # The ETag of a part is its MD5, unless it is encrypted by a key of the user's: then it is sent again.
            etag = there.get(number, "")
            if etag.strip('"') != md5.hex():
                etag = await self._send_part(wanted.name, upload_id, number, part, md5)
            parts.append({"PartNumber": number, "ETag": etag})
            wanted.tell(begin + len(part))
        proof.check(wanted.sha256)
        try:
            await self._ask(
                self._client.complete_multipart_upload(
                    Bucket=self._bucket, Key=wanted.name, UploadId=upload_id, MultipartUpload={"Parts": parts}
                )
            )
        except _RefusedError as error:
            if error.code in _BEGIN_ANEW - {"NoSuchUpload"}:
                await self._abort(wanted.name, upload_id)
            raise
        return proof.crc64

    async def _begin(self, wanted: _Wanted) -> str:
        answer = await self._ask(
            self._client.create_multipart_upload(
                Bucket=self._bucket,
                Key=wanted.name,
                ContentType=_content_type(wanted.name),
                Metadata={"sha256": wanted.sha256},
            )
        )
        if wanted.on_upload_id is not None:
            await wanted.on_upload_id(answer["UploadId"])
        return answer["UploadId"]

    async def _parts_there(self, name: str, upload_id: str) -> dict[int, str]:
        """Return the ETags of the parts that were sent before, by their numbers."""
        there: dict[int, str] = {}
        marker = 0
        while True:
            answer = await self._ask(
                self._client.list_parts(Bucket=self._bucket, Key=name, UploadId=upload_id, PartNumberMarker=marker)
            )
            there |= {part["PartNumber"]: part["ETag"] for part in answer.get("Parts", ())}
            following = answer.get("NextPartNumberMarker", 0)
            if not answer.get("IsTruncated") or following <= marker:
                return there
            marker = following

    async def _send_part(self, name: str, upload_id: str, number: int, part: _Slice, md5: bytes) -> str:
        request = self._client.upload_part(
            Bucket=self._bucket,
            Key=name,
            UploadId=upload_id,
            PartNumber=number,
            Body=part,
            ContentLength=len(part),
            ContentMD5=_base64(md5),
        )
        return (await self._ask(request, part))["ETag"]

    async def _is_there(self, name: str, size: int, sha256: str) -> bool:
        """Say whether exactly this file was placed before. It is no error if that cannot be asked."""
        try:
            found = await self._ask(self._client.head_object(Bucket=self._bucket, Key=name))
        except _RefusedError as error:
            # 403: so Amazon answers where there is nothing and the key may not list.
            if error.status in (_NOT_FOUND, _FORBIDDEN):
                return False
            raise
        return found["ContentLength"] == size and found.get("Metadata", {}).get("sha256") == sha256

    async def _verify(self, name: str, size: int, crc: int) -> None:
        found = await self._ask(self._client.head_object(Bucket=self._bucket, Key=name))
        if found["ContentLength"] != size:
            raise PlaceError(f"{self.name} has {found['ContentLength']} bytes of a file of {size}: it is placed again")
        # Only COS has it: https://cloud.tencent.com/document/product/436/40334
        theirs = found["ResponseMetadata"]["HTTPHeaders"].get("x-cos-hash-crc64ecma")
        if theirs is not None and theirs != str(crc):
            raise PlaceError(f"{self.name} has other bytes than were sent: the file is placed again")

    async def _ask(self, request: Awaitable[Result], body: _Slice | None = None) -> Result:
        """Return the answer to a request; make a sentence of what goes wrong, and of a body that nobody takes."""
        task = asyncio.ensure_future(request)
        try:
            return await unless_stalled(task, lambda: 0 if body is None else body.moved, after_s=self._stalled_after_s)
        except ClientError as error:
            raise self._explain(error) from None
        except (BotoCoreError, ConnectionFault, OSError) as error:
            # Not the text: it has the whole address, and whatever a user has put into that.
            raise PlaceError(
                f"{self.name} does not answer ({type(error).__name__}): look after its endpoint and the network"
            ) from None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _explain(self, error: ClientError) -> _RefusedError:
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = re.sub(r"[^A-Za-z0-9._-]", "", answer.get("Error", {}).get("Code") or "")[:64]
        if code.isdigit() or not code:
            code = _STATUSES.get(status, code or str(status))
        is_full = code in _FULL_CODES or status == _FULL_STATUS
        remedy = "it is full: make room there" if is_full else _REMEDIES.get(code, "look into the server's log")
        return _RefusedError(f"{self.name} refuses ({code}): {remedy}", code=code, status=status, is_full=is_full)


@cache
def _session() -> AioSession:
    """Return what clients are made with; it reads what botocore knows of S3 once, which takes a second.

    What a user has configured for other programs must not lead the archive elsewhere.
    """
    nothing = (None, None, os.devnull, None)
    session = AioSession(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": nothing,
            "credentials_file": nothing,
        }
    )
    session.register_component("data_loader", Loader(file_loader=_OnlyNeeded()))
    return session


#: All that is asked here, and by botocore itself: where a bucket is, and for a session of an express one. Who asks for
#: something else adds it, since the client has no method for it otherwise.
_OPERATIONS: Final = (
    *("HeadBucket", "CreateSession"),
    *("AbortMultipartUpload", "CompleteMultipartUpload", "CreateMultipartUpload", "GetObject", "HeadObject"),
    *("ListObjectsV2", "ListParts", "PutObject", "UploadPart"),
)


class _OnlyNeeded(JSONFileLoader):  # type: ignore[misc] # botocore has no types
    """Reads of botocore's data what is needed here; the rest is never decoded, and would take 13 MB."""

    def load_file(self, file_path: str) -> Any:
        for ending, opened in ((".json", open), (".json.gz", gzip.open)):
            with suppress(FileNotFoundError), opened(f"{file_path}{ending}", "rb") as file:
                return _needed(file.read())
        return None


def _needed(text: bytes) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    if "operations" in data:
        raw = msgspec.json.decode(data["operations"], type=dict[str, msgspec.Raw])
        operations = {name: msgspec.json.decode(raw[name]) for name in _OPERATIONS}
        shapes = _reached(msgspec.json.decode(data["shapes"], type=dict[str, msgspec.Raw]), operations)
        data |= {"operations": operations, "shapes": shapes}
    elif "partitions" in data:
        data["partitions"] = [
            {name: _of_s3(one) if name == "services" else msgspec.json.decode(one) for name, one in partition.items()}
            for partition in msgspec.json.decode(data["partitions"], type=list[dict[str, msgspec.Raw]])
        ]
    return {name: msgspec.json.decode(one) if isinstance(one, msgspec.Raw) else one for name, one in data.items()}


def _of_s3(services: msgspec.Raw) -> dict[str, Any]:
    raw = msgspec.json.decode(services, type=dict[str, msgspec.Raw])
    return {name: msgspec.json.decode(one) for name, one in raw.items() if name == "s3"}


def _reached(shapes: dict[str, msgspec.Raw], operations: dict[str, Any]) -> dict[str, Any]:
    """Return the shapes that operations refer to, directly or not, without any documentation."""
    found: dict[str, Any] = {}
    waiting: list[Any] = [operations]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            one.pop("documentation", None)
            name = one.get("shape")
            if isinstance(name, str) and name not in found:
                found[name] = msgspec.json.decode(shapes[name])
                waiting.append(found[name])
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


class _SliceSigner(S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """Signs with the digest that a slice has already: to read it for that alone holds up the loop, 55 ms for 16 MiB."""

    def payload(self, request: AWSRequest) -> str:
        body = request.body
        if isinstance(body, _Slice) and body.sha256 is not None and self._should_sha256_sign_payload(request):
            return body.sha256
        return str(super().payload(request))


_SLICE_SIGNER: Final = "s3v4-slices"
AUTH_TYPE_MAPS[_SLICE_SIGNER] = _SliceSigner


def _without_expect(request: AWSPreparedRequest, **_: object) -> None:
    """Send bodies at once: aiohttp would wait for ever for the `100 Continue` of a server that knows none.

    Servers may leave it out, and some do: https://github.com/boto/botocore/issues/3755
    """
    request.headers.pop("Expect", None)


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
