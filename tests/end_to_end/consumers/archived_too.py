from schemas import RecordingArchived
from workers import Context, consumer


@consumer
async def archived_too(event: RecordingArchived, ctx: Context) -> None:
    digests = [file.sha256 for file in event.manifest.files]
    ctx.log.info("is_safe", task_id=event.task_id, location=event.manifest.location, digests=digests)
