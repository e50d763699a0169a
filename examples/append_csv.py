"""Append the videos of finished recordings to a CSV file that spreadsheets open.

    CSV_FILE=recordings.csv TIW_CONSUMERS=examples/append_csv.py ./dev up

CSV_FILE   the file; it is made when the first recording is finished

One row per video; a recording without videos, such as a failed one, has one row too. Each row is there once, although
an event can come more than once: an event's rows begin with its event_id, are written together and in one order, and
those that are there already are not written again. Several processes can share the file on a local disk.
"""

import csv
import fcntl
import io
import os
from collections.abc import Iterator
from pathlib import Path

from schemas import OnlineRecordFinished, VideoInfo
from workers import Context, consumer

COLUMNS = (
    *("event_id", "received_at", "sdk_app_id", "task_id", "room_id", "finish_reason", "error", "video"),
    *("video_id", "video_url", "video_format", "video_size", "video_duration_ms", "user_id"),
)
# Excel takes a file without a byte order mark for one in the system's own character set.
HEADER = b"\xef\xbb\xbf" + ",".join(COLUMNS).encode() + b"\r\n"
# A spreadsheet runs what begins like this as a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")

if not os.environ.get("CSV_FILE"):
    raise ValueError("CSV_FILE must name the file to append to, such as recordings.csv")
FILE = Path(os.environ["CSV_FILE"])


@consumer(timeout_s=60, concurrency=1)
def append_csv(event: OnlineRecordFinished, ctx: Context) -> None:
    """Append what is not there yet, and return when it is on the disk."""
    with FILE.open("a+b") as file:
        # Let go of when the file is closed, also by a process that dies.
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if not whole.startswith(HEADER) and not HEADER.startswith(content):
            raise ValueError(f"{FILE} has other columns: name another CSV_FILE")
        # A loss of power can leave half a row: it is cut off and written again.
        file.truncate(len(whole))
        present = whole.count(f"\n{ctx.event_id},".encode())
        missing = list(lines(event, ctx))[present:]
        file.write(b"".join(missing if whole else [HEADER, *missing]))
        file.flush()
        os.fsync(file.fileno())
    if not whole:
        keep_name()


def lines(event: OnlineRecordFinished, ctx: Context) -> Iterator[bytes]:
    """Yield the rows of an event."""
    error = "" if event.error is None else f"{event.error.code}: {event.error.message}"
    recording = (event.sdk_app_id, event.task_id, event.room_id, event.finish_reason, error)
    for number, video in enumerate(event.video_infos or (VideoInfo(),), start=1):
        yield line(
            (
                *(
                    ctx.event_id,
                    f"{ctx.received_at:%Y-%m-%dT%H:%M:%SZ}",
                    *recording,
                    number if event.video_infos else "",
                ),
                *(video.video_id, video.video_url, video.video_format, video.video_size, video.video_duration_ms),
                video.user_id,
            )
        )


def line(values: tuple[object, ...]) -> bytes:
    """Return one row, ending in a line break and holding no other."""
    row = io.StringIO(newline="")
    csv.writer(row).writerow(["" if value is None else cell(value) for value in values])
    return row.getvalue().encode()


def cell(value: object) -> str:
    """Return a value as text on one line that no spreadsheet runs."""
    text = "".join(c if c.isprintable() else " " for c in str(value)).strip()
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text


def keep_name() -> None:
    """Make the name of a new file as durable as its content."""
    folder = os.open(FILE.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
