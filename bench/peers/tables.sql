-- What the peers store: the event as it came, and what a finished recording came to.
CREATE TABLE events (
    event_id text PRIMARY KEY,
    event_type text NOT NULL,
    sdk_app_id bigint NOT NULL,
    task_id text NOT NULL,
    "timestamp" bigint NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    body bytea NOT NULL
);
CREATE INDEX events_received ON events (received_at, event_id);

CREATE TABLE recordings (
    sdk_app_id bigint NOT NULL,
    task_id text NOT NULL,
    room_id bigint,
    group_id text,
    record_user_id text,
    finish_reason text,
    record_start_time bigint,
    record_stop_time bigint,
    total_time_ms bigint,
    exception_count bigint,
    omitted_durations jsonb NOT NULL,
    videos jsonb NOT NULL,
    "timestamp" bigint NOT NULL,
    event_id text NOT NULL,
    PRIMARY KEY (sdk_app_id, task_id)
);
