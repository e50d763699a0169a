"""The process that archives, as long as it is entered."""

import asyncio
from pathlib import Path

import pytest

from archive import AddressRules, ArchiveConfig, Archiver, Fetcher, FetchLimits
from tests.archive.world import a_world


async def test_the_target_is_looked_at_once_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_world(tmp_path) as w, Fetcher(AddressRules(hosts=()), FetchLimits()) as fetcher:
        looks, check = [], w.place.check

        async def counting(*, must_exist: bool = False) -> None:
            looks.append(must_exist)
            await check(must_exist=must_exist)

        monkeypatch.setattr(w.place, "check", counting)
        archiver = Archiver(
            ArchiveConfig(),
            store=w.store,
            transport=w.transport,
            fetcher=fetcher,
            place=w.place,
            staging=w.worker.staging,
            now_s=w.clock,
        )
        async with asyncio.timeout(30), archiver:
            while archiver.ready().not_ready:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
    assert looks == [False]
