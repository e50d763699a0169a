"""A process that appends events: `python -m tests.examples.append_child FIRST COUNT`."""

import asyncio
import sys

from schemas import OnlineRecordFinished, VideoInfo
from tests.examples.loading import load_example
from workers import Ack, run_consumer


async def append(first: int, count: int) -> None:
    consumer = load_example("append_csv")
    for number in range(first, first + count):
        event = OnlineRecordFinished(
            task_id=f"task-{number}", timestamp=1, video_infos=tuple(VideoInfo(video_id=f"v{n}") for n in range(3))
        )
        assert await run_consumer(consumer, event, event_id=f"{number:032x}") == Ack()


if __name__ == "__main__":
    asyncio.run(append(int(sys.argv[1]), int(sys.argv[2])))
