"""Write a page with the videos of a recording, for students: only with addresses that the vendor itself confirmed.

    PAGES_FOLDER=/srv/www/recordings TIW_CONSUMERS=examples/publish_page.py ./dev up

PAGES_FOLDER   the folder; it is made when the first recording is finished

A callback proves little: who has seen one can send another with addresses of his own, and students would follow them.
So this consumer has `verified=True`: it gets an event once `tiw reconcile` has asked the vendor, with the vendor's
addresses. Without `tiw reconcile` no page is ever written.

A page is written whole or not at all, and the same again if its event comes again.
"""

import os
from html import escape
from pathlib import Path

from schemas import OnlineRecordFinished, VideoInfo
from workers import Context, Drop, consumer

if not os.environ.get("PAGES_FOLDER"):
    raise ValueError("PAGES_FOLDER must name the folder to write pages to, such as /srv/www/recordings")
FOLDER = Path(os.environ["PAGES_FOLDER"])

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>Room {room}</title>
<h1>Room {room}</h1>
<ol>
{items}
</ol>
"""


@consumer(timeout_s=30, verified=True)
def publish_page(event: OnlineRecordFinished, ctx: Context) -> None:
    """Write the page of a recording; one without videos has none."""
    items = [item(video) for video in event.video_infos if is_web_address(video.video_url)]
    if not items:
        raise Drop("the recording has no videos")
    page = PAGE.format(room=event.room_id or "unknown", items="\n".join(items))
    # Of the names in an event none is the name of a file: they may be anything.
    path = FOLDER / f"{ctx.event_id}.html"
    FOLDER.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    part.replace(path)
    ctx.log.info("page_written", path=str(path), videos=len(items), source=ctx.source or "callback")


def is_web_address(url: str | None) -> bool:
    """Say whether a link may lead there: not `javascript:`, for one."""
    return url is not None and url.startswith(("https://", "http://"))


def item(video: VideoInfo) -> str:
    """Return a video as a list item in which nothing is taken for markup."""
    minutes = "" if video.video_duration_ms is None else f", {video.video_duration_ms / 60_000:.0f} min"
    address = escape(video.video_url or "")
    return f'<li><a href="{address}">{escape(video.user_id or "Video")}</a>{minutes}</li>'
