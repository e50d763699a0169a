INSERT INTO events (event_id, event_type, sdk_app_id, task_id, "timestamp", body)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (event_id) DO NOTHING
RETURNING event_id
