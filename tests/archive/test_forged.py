"""What somebody can do who may send any Finished event of an application, or writes manifests: nothing to the others."""

from pathlib import Path
from typing import Any

import pytest

from store import count_archive
from tests.archive.serving import SECRET, answering
from tests.archive.world import World, a_class, a_world, end, finished
from tests.reconcile.world import forged

HOUR_S = 3600.0
LARGEST = 2**63 - 1


async def forge(w: World, *, task_id: str = "forged", videos: list[dict[str, Any]], **changes: Any) -> None:
    """Deliver a Finished event whose files somebody made up."""
    event = forged(finished(a_class(w, 99)), **changes)
    event["EventData"] |= {"TaskId": task_id, "VideoInfos": videos}
    event["Timestamp"] = int(w.clock())
    await w.deliver(event)


def a_video(url: str, **changes: Any) -> dict[str, Any]:
    return {"VideoId": "f", "VideoUrl": url, "VideoSize": 1000, "VideoType": 0, "VideoFormat": "mp4"} | changes


@pytest.mark.parametrize("number", [LARGEST, -LARGEST - 1, 0, -1, 253_402_300_799, 10**12])
async def test_no_number_of_a_forged_event_hurts_another_recording(tmp_path: Path, number: int) -> None:
    async with a_world(tmp_path) as w:
        video = a_video(
            f"{w.vendor_files.url}/nothing.mp4",
            **dict.fromkeys(("VideoSize", "VideoType", "VideoPlayTime", "VideoDuration", "Width", "Height"), number),
        )
        await forge(w, videos=[video], RecordStopTime=number, RecordStartTime=number, RoomId=number, TotalTime=number)
        cls = a_class(w)
        await end(w, cls)
        await w.settle()
        w.check_bytes(await w.recording(cls.task_id))
        # It can be listed, and neither goes before the others nor is tried for ever.
        (row,) = [row for row in await w.rows() if row.task_id == "forged"]
        assert "2026-01-05" <= row.deleted_at <= "2026-01-10"
        await w.pass_by(80 * HOUR_S, step_s=20 * HOUR_S)
        assert (await count_archive(w.store)).waiting == 0


@pytest.mark.parametrize("year", [1970, 9999])
async def test_a_source_cannot_choose_when_its_file_is_to_be_deleted(tmp_path: Path, year: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nLast-Modified: Fri, 31 Dec {year} 23:59:59 GMT\r\nContent-Length: 1000\r\n\r\n"
    async with answering(head.encode() + b"cut off") as raw, a_world(tmp_path, more_hosts=raw.host) as w:
        await forge(w, videos=[a_video(raw.url)])
        await w.settle()
        (row,) = await w.rows()
        assert "2026-01-05" <= row.deleted_at <= "2026-01-10"
        assert SECRET not in repr(row)
        await w.pass_by(200 * HOUR_S, step_s=20 * HOUR_S)
        assert await w.states() == ["lost"]
