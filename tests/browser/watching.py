"""A console in this process, with recordings whose files are tiny videos in an archive, or are not there."""

import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

from archive import open_place, parse_target
from tests.console.archived import APP, FOLDER, TASK, File, a_file, keep, of_tests
from tests.console.world import running

#: A class as the vendor sends it: streams that begin and end at different times, and stretches that were left out.
CLASS: tuple[File, ...] = (
    of_tests("1_whiteboard.mp4", "whiteboard.mp4", video_duration_ms=12_000),
    of_tests(
        "2_camera.mp4",
        "camera.mp4",
        video_type=0,
        video_play_time_ms=2_000,
        video_duration_ms=8_000,
        user_id="Mac_trtc_04",
    ),
    of_tests(
        "3_audio.mp3", "sound.mp3", video_type=4, video_play_time_ms=5_000, video_duration_ms=6_000, user_id="老师"
    ),
)
LEFT_OUT = [{"VideoTime": 4_000, "PauseTime": 100_000, "ResumeTime": 280_000}]

#: Files of which some cannot be played: no video, gone from the archive, at the vendor, lost on a forged host.
BROKEN: tuple[File, ...] = (
    of_tests("1_whiteboard.mp4", "whiteboard.mp4", video_id="whole"),
    a_file("2_camera.mp4", b"this is no video at all", video_type=0, user_id="damaged"),
    of_tests("3_camera.mp4", "camera.mp4", video_type=0, user_id="gone", video_id="gone"),
    a_file("4_screen.mp4", None, video_type=1, user_id="tic_substream_teacher", video_size=5),
    a_file(
        "5_camera.mp4",
        None,
        video_type=0,
        user_id="<b>\u202eforged",
        video_url="http://evil.example/a.mp4",
        video_size=6,
    ),
)
UNKNOWN_LENGTH: tuple[File, ...] = (
    of_tests("1_camera.webm", "unknown_length.webm", video_type=0, video_duration_ms=None, user_id="teacher"),
)


class Watching:
    """An async context manager: the console, at `url`, and whose archive lies in `folder`/classes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        def opened() -> Any:
            return open_place(parse_target(str(self.folder / "classes")))

        world = await self._stack.enter_async_context(running(self.folder, open_place=opened, log_in=False))
        self.url = f"http://127.0.0.1:{world.port}"
        async with opened() as place:
            await keep(world.store, place, CLASS, OmittedDurations=LEFT_OUT)
            await keep(world.store, place, BROKEN, task_id="broken")
            await keep(world.store, place, UNKNOWN_LENGTH, task_id="unknown-length", TotalTime=None)
            many = [
                of_tests(f"{n}_camera.mp4", "camera.mp4", video_type=0, user_id=f"pupil_{n:02}") for n in range(2, 12)
            ]
            await keep(world.store, place, [CLASS[0], *many], task_id="many")
        self.archived("broken", "3_camera.mp4").unlink()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def archived(self, task_id: str, name: str) -> Path:
        """Return where a file lies in the archive."""
        return self.folder / "classes" / FOLDER.replace(TASK, task_id) / name

    def take_away(self) -> Callable[[], None]:
        """Let the archive be away; return what brings it back."""
        there, elsewhere = self.folder / "classes", self.folder / "unmounted"
        there.rename(elsewhere)

        def bring_back() -> None:
            shutil.rmtree(there, ignore_errors=True)
            elsewhere.rename(there)

        return bring_back


def watch(task_id: str = TASK, moment: str = "") -> str:
    """Return the address of the page that plays a recording."""
    return f"/recording?{urlencode({'app': APP, 'task': task_id})}{moment}"
