"""The work of a storing peer: event and recording in one transaction, each event once."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg

AMQP_URL = os.environ["BENCH_AMQP_URL"]
QUEUE = os.environ["BENCH_QUEUE"]
DATABASE_URL = os.environ["BENCH_DATABASE_URL"]

#: Deliveries that are here and not acknowledged, at most.
PREFETCH = 100
CONNECTIONS = 10

#: The header in which a message says which event it is.
EVENT_ID = "tiw-event-id"

_SQL = Path(__file__).resolve().parents[1]
_INSERT_EVENT = (_SQL / "insert_event.sql").read_text()
_UPSERT_RECORDING = (_SQL / "upsert_recording.sql").read_text()


def event_id_of(headers: Mapping[str, Any], body: bytes) -> str:
    """Return the id under which an event is stored once: what its message says, else what its content says."""
    return str(headers.get(EVENT_ID) or hashlib.sha256(body).hexdigest()[:32])


async def open_pool() -> asyncpg.Pool:
    """Return a pool whose connections are open. asyncpg prepares each statement once per connection."""
    return await asyncpg.create_pool(DATABASE_URL, min_size=CONNECTIONS, max_size=CONNECTIONS)


async def store(pool: asyncpg.Pool, event_id: str, body: bytes, event: dict[str, Any]) -> None:
    """Store an event and what it says of its recording, unless the event is there already."""
    data = event["EventData"]
    async with pool.acquire() as connection, connection.transaction():
        is_new = await connection.fetchval(
            _INSERT_EVENT, event_id, event["EventType"], event["SdkAppId"], data["TaskId"], event["Timestamp"], body
        )
        if not is_new:
            return
        await connection.execute(
            _UPSERT_RECORDING,
            event["SdkAppId"],
            data["TaskId"],
            data.get("RoomId"),
            data.get("GroupId"),
            data.get("RecordUserId"),
            data.get("FinishReason"),
            data.get("RecordStartTime"),
            data.get("RecordStopTime"),
            data.get("TotalTime"),
            data.get("ExceptionCnt"),
            json.dumps(data.get("OmittedDurations", [])),
            json.dumps(data.get("VideoInfos", [])),
            event["Timestamp"],
            event_id,
        )
