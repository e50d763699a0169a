"""A page of links is written for what the vendor confirmed, and for nothing else."""

from pathlib import Path

import pytest
from msgspec import structs

from schemas import OnlineRecordFinished, VideoInfo
from tests.examples.loading import load_example
from workers import Ack, Consumer, DeadLetter, Drop, LoadError, run_consumer

EVENT = OnlineRecordFinished(
    task_id="task",
    room_id=7,
    timestamp=1,
    video_infos=(
        VideoInfo(video_url="https://example.com/1.mp4?a=1&b=2", user_id="<b>teacher</b>", video_duration_ms=2_700_000),
        VideoInfo(video_url='javascript:alert("hello")', user_id="nobody"),
        VideoInfo(),
    ),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pages"
    monkeypatch.setenv("PAGES_FOLDER", str(path))
    return path


@pytest.fixture
def publish_page(folder: Path) -> Consumer:
    return load_example("publish_page")


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*")]


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


async def test_the_page_has_the_videos_and_no_markup_of_theirs(publish_page: Consumer, folder: Path) -> None:
    for _ in range(2):
        assert await run_consumer(publish_page, EVENT, event_id="a" * 32) == Ack()
    assert names(folder) == [f"{'a' * 32}.html"]
    text = read(folder / f"{'a' * 32}.html")
    assert "<h1>Room 7</h1>" in text
    links = [line for line in text.splitlines() if line.startswith("<li>")]
    assert links == ['<li><a href="https://example.com/1.mp4?a=1&amp;b=2">&lt;b&gt;teacher&lt;/b&gt;</a>, 45 min</li>']


async def test_what_the_vendor_contradicts_has_no_page(publish_page: Consumer, folder: Path) -> None:
    outcome = await run_consumer(publish_page, EVENT, verified=False)
    assert outcome == DeadLetter("the vendor contradicts it: it gives no such result")
    assert names(folder) == []


async def test_a_recording_without_videos_has_no_page(publish_page: Consumer, folder: Path) -> None:
    outcome = await run_consumer(publish_page, structs.replace(EVENT, video_infos=()))
    assert outcome == Drop("the recording has no videos")
    assert names(folder) == []


def test_without_a_folder_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAGES_FOLDER", raising=False)
    with pytest.raises(LoadError, match="PAGES_FOLDER must name the folder"):
        load_example("publish_page")
