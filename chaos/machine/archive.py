"""Processes that archive, the vendor's files that they fetch, and the target, as a scenario sees them."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct
from sqlalchemy import select

from archive import Staging
from chaos.checking.archived import Original
from chaos.machine.deployment import OTHER_APP, Deployment
from chaos.machine.node import Node
from schemas import OnlineRecordFinished, decode, file_key
from simulator import SimulatedClass, VendorFiles, render
from store import ArchiveFileRow, Recording, Store, archived_files, find_recordings, list_archive_files
from tests.servers.rclone import ACCESS_KEY_ID, SECRET_ACCESS_KEY

#: Beyond what a scenario writes, so that a small disk is enough.
FLOOR_BYTES = 4 * 1024 * 1024

BUCKET = "classes"


class Target(Struct, frozen=True, kw_only=True):
    """Where files are archived: the settings that say so, and the folder in which its files really lie."""

    settings: dict[str, str]
    root: Path


def folder_target(folder: Path) -> Target:
    """Return a target that is a folder below `folder`."""
    return Target(settings={"TIW_ARCHIVE": str(folder / "classes")}, root=folder / "classes")


def bucket_target(buckets: Path, url: str) -> Target:
    """Return a target in a bucket of the S3 server at `url`, whose buckets are the folders of `buckets`."""
    return Target(
        settings={
            "TIW_ARCHIVE": f"s3://{BUCKET}/kept",
            "TIW_ARCHIVE_S3_ENDPOINT": url,
            "TIW_ARCHIVE_S3_STYLE": "path",
            "TIW_ARCHIVE_S3_KEY_ID": ACCESS_KEY_ID,
            "TIW_ARCHIVE_S3_SECRET": SECRET_ACCESS_KEY,
        },
        root=buckets / BUCKET / "kept",
    )


class Archive:
    """`replicas` of `tiw archive run` that share a staging folder; `start` starts them.

    `settings` come on top, those of who asks the vendor among them.
    """

    def __init__(
        self,
        deployment: Deployment,
        target: Target,
        files: VendorFiles,
        staging: Path,
        *,
        settings: Mapping[str, str],
        replicas: int = 2,
    ) -> None:
        self.target = target
        self.staging = Staging(staging, min_free_bytes=0)
        self._deployment = deployment
        self._files = files
        environ = {
            # The callbacks' addresses, where nobody asks the vendor.
            "TIW_ARCHIVE_HOSTS": files.url.removeprefix("http://"),
            "TIW_ARCHIVE_NETWORKS": "127.0.0.0/8",
            "TIW_ARCHIVE_STAGING": str(staging),
            "TIW_ARCHIVE_MIN_FREE_BYTES": str(FLOOR_BYTES),
            **target.settings,
            **settings,
        }
        self.nodes = [
            deployment.add(f"archive-{number}", "archive", "run", **environ) for number in range(1, replicas + 1)
        ]

    def start(self) -> None:
        """Start all; return once each is ready."""
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()

    def rows(self) -> list[ArchiveFileRow]:
        """Return what the store knows of all files."""
        return asyncio.run(self._rows())

    async def _rows(self) -> list[ArchiveFileRow]:
        async with Store(self._deployment.wiring.direct_database_url) as store:
            return await list_archive_files(store, app=OTHER_APP, limit=0)

    def uploads(self) -> list[str]:
        """Return the ids of uploads that were begun, of files that are not archived yet."""
        return asyncio.run(self._uploads())

    async def _uploads(self) -> list[str]:
        query = select(archived_files.c.upload_id).where(archived_files.c.upload_id.is_not(None))
        async with Store(self._deployment.wiring.direct_database_url) as store, store.reading() as connection:
            return [row.upload_id for row in await connection.execute(query)]

    def recordings(self, classes: Iterable[SimulatedClass]) -> list[Recording]:
        """Return what the store knows of these classes."""
        return asyncio.run(self._recordings(classes))

    async def _recordings(self, classes: Iterable[SimulatedClass]) -> list[Recording]:
        async with Store(self._deployment.wiring.direct_database_url) as store:
            found = [await find_recordings(store, cls.task_id, app=OTHER_APP) for cls in classes]
        return [one for recordings in found for one in recordings]

    def originals(self, classes: Iterable[SimulatedClass]) -> list[Original]:
        """Return the files of these classes as the vendor has them now."""
        return [
            Original(task_id=cls.task_id, path=file.path, content=file.content, modified_at=file.modified_at)
            for cls in classes
            for url, _ in _videos(cls)
            for file in [self._files.file(url)]
        ]

    def parts(self, classes: Iterable[SimulatedClass]) -> dict[Path, str]:
        """Return the path at the vendor's of each file, by where its part is staged."""
        return {
            self.staging.part(OTHER_APP, cls.task_id, key): urlsplit(url).path
            for cls in classes
            for url, key in _videos(cls)
        }

    def staged(self) -> list[Path]:
        """Return the parts that are there and hold something."""
        return [part.path for part in self.staging.parts() if part.size]


def _videos(cls: SimulatedClass) -> Iterator[tuple[str, str]]:
    """Yield the address and the key of each file of a class."""
    event = decode(render(cls.callbacks[-1]), received_at_us=time.time_ns() // 1000).event
    if isinstance(event, OnlineRecordFinished):
        for video in event.video_infos:
            if video.video_url is not None:
                yield video.video_url, file_key(video)


def open_parts(node: Node) -> Sequence[str]:
    """Return the names of the parts that a process is just writing."""
    found = []
    with suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{node.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if (target := descriptor.readlink()).suffix == ".part":
                    found.append(target.name)
    return found


@contextmanager
def moved_away(folder: Path) -> Iterator[None]:
    """Let a folder be elsewhere while the block runs. Raises `OSError` if something stands in its place afterwards."""
    elsewhere = folder.with_name(f"{folder.name}.away")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(folder)
