"""What follows once all files of a recording are settled: the manifest and the page beside them, then the event."""

from typing import Final, Protocol

import msgspec
import structlog

from archive.manifest import make_manifest, render_manifest
from archive.naming import MANIFEST_NAME, PAGE_NAME
from archive.page import index_html
from archive.places import Place, PlaceError
from broker import Message, NotPublishedError
from schemas import RECORDING_ARCHIVED, Manifest, ManifestFile, RecordingArchived, event_id
from store import ArchiveFile, ManifestWork, Store, finish_manifest, iso8601, postpone_manifest
from telemetry import metrics

#: The `source` of events that tell of what was archived.
SOURCE: Final = "archive"

_AGAIN_S: Final = 30.0

_log = structlog.get_logger()


class Publisher(Protocol):
    """As much of a transport as is needed here."""

    async def publish(self, message: Message) -> None:
        """Hand an event to every consumer bound to its routing key. Raises `NotPublishedError`."""


class Announcer:
    """Writes manifests and tells of archived recordings, for one store, transport and target."""

    def __init__(self, store: Store, transport: Publisher, place: Place, *, lease_holder: str) -> None:
        self._store = store
        self._transport = transport
        self._place = place
        self._lease_holder = lease_holder

    async def announce(self, work: ManifestWork) -> None:
        """Write the manifest of a claimed recording; tell of it if all its files are archived.

        Whatever happens in between, all of it is done again: the same bytes, and the same event. Raises `StoreError`.
        """
        key = work.key
        if work.recording is None:
            # Its rows were made from a manifest, which says more than could be said now.
            await finish_manifest(
                self._store,
                key,
                lease_holder=self._lease_holder,
                location=self._place.location(work.folder),
                archived_at_us=work.archived_at_us,
            )
            return
        manifest = make_manifest(
            work.recording,
            [_manifest_file(file) for file in work.files],
            folder=work.folder,
            location=self._place.location(work.folder),
            archived_at=iso8601(_archived_at_us(work)),
        )
        try:
            await self._place.put_bytes(f"{work.folder}/{PAGE_NAME}", index_html(manifest), "text/html; charset=utf-8")
            await self._place.put_bytes(f"{work.folder}/{MANIFEST_NAME}", render_manifest(manifest), "application/json")
            is_whole = all(file.outcome == "archived" for file in manifest.files)
            if is_whole:
                await self._transport.publish(_message(manifest, _archived_at_us(work)))
        except (PlaceError, NotPublishedError) as error:
            _log.warning("manifest_postponed", task_id=work.task_id, reason=str(error), again_in_s=_AGAIN_S)
            await postpone_manifest(self._store, key, lease_holder=self._lease_holder, after_s=_AGAIN_S)
            return
        is_ours = await finish_manifest(
            self._store,
            key,
            lease_holder=self._lease_holder,
            location=manifest.location,
            archived_at_us=_archived_at_us(work) if is_whole else None,
        )
        if not is_ours:
            return
        log = _log.bind(sdk_app_id=work.sdk_app_id, task_id=work.task_id, location=manifest.location)
        if is_whole:
            metrics.ARCHIVED_RECORDINGS.inc()
            log.info("recording_archived", files=len(manifest.files))
        else:
            missing = [file.name for file in manifest.files if file.outcome != "archived"]
            log.error("recording_incomplete", missing=missing, advice="`tiw archive list` says why")


def _manifest_file(file: ArchiveFile) -> ManifestFile:
    modified_at = file.last_modified_at
    return msgspec.convert(
        file.details
        | {
            "file_key": file.file_key,
            "name": file.name,
            "outcome": file.outcome,
            "reason": file.reason,
            "size": file.size,
            "announced_size": file.announced_size,
            "sha256": file.sha256,
            "crc64": file.crc64,
            "checked": file.checked,
            "archived_at": None if file.archived_at_us is None else iso8601(file.archived_at_us),
            "url": file.url,
            "address_from": file.address_from,
            "etag": file.etag,
            "last_modified": None if modified_at is None else iso8601(modified_at * 1_000_000),
        },
        ManifestFile,
    )


def _archived_at_us(work: ManifestWork) -> int:
    """Return when the last of its files was: the same however often it is asked."""
    return max((file.archived_at_us or 0 for file in work.files), default=0) or work.claimed_at_us


def _message(manifest: Manifest, archived_at_us: int) -> Message:
    timestamp = archived_at_us // 1_000_000
    event = RecordingArchived(
        timestamp=timestamp,
        sdk_app_id=manifest.sdk_app_id,
        task_id=manifest.task_id,
        room_id=manifest.room_id,
        manifest=manifest,
    )
    flat = msgspec.to_builtins(event)
    data = {name: value for name, value in flat.items() if name not in ("Timestamp", "SdkAppId")}
    return Message(
        body=msgspec.json.encode(
            {
                "EventType": RECORDING_ARCHIVED,
                "SdkAppId": manifest.sdk_app_id,
                "Timestamp": timestamp,
                "EventData": data,
            }
        ),
        event_id=event_id(manifest.sdk_app_id, RECORDING_ARCHIVED, timestamp, data),
        routing_key=RECORDING_ARCHIVED,
        received_at_us=archived_at_us,
        source=SOURCE,
    )
