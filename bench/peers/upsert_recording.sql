-- The latest of the events that finished a recording wins, whatever the order in which they are handled.
INSERT INTO recordings AS known (
    sdk_app_id, task_id, room_id, group_id, record_user_id, finish_reason, record_start_time, record_stop_time,
    total_time_ms, exception_count, omitted_durations, videos, "timestamp", event_id
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (sdk_app_id, task_id) DO UPDATE SET
    room_id = excluded.room_id,
    group_id = excluded.group_id,
    record_user_id = excluded.record_user_id,
    finish_reason = excluded.finish_reason,
    record_start_time = excluded.record_start_time,
    record_stop_time = excluded.record_stop_time,
    total_time_ms = excluded.total_time_ms,
    exception_count = excluded.exception_count,
    omitted_durations = excluded.omitted_durations,
    videos = excluded.videos,
    "timestamp" = excluded."timestamp",
    event_id = excluded.event_id
WHERE (known."timestamp", known.event_id) < (excluded."timestamp", excluded.event_id)
