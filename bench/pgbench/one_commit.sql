-- :batch activities in one transaction: claim the next of a lane, complete them, queue each job's next task.
-- As in OMS, each change has its event in the outbox, numbered under its job's row lock, and its lane's counts.
\set lane random(0, 2)
\set now 1800000000000
BEGIN;
WITH claimed AS (
    UPDATE tasks SET status = 'running', attempt = attempt + 1, token = replace(gen_random_uuid()::text, '-', ''),
        ended_by = NULL, worker = NULL, progress = NULL, note = NULL, lease_expires_at = :now::bigint + lease_sec * 1000
    WHERE task_id = ANY (ARRAY(
        SELECT tasks.task_id FROM tasks JOIN jobs ON jobs.job_id = tasks.job_id
        WHERE tasks.lane = 'lane_' || :lane::int AND status = 'queued' AND ready
        ORDER BY tasks.priority DESC, available_at, task_id LIMIT :batch::int FOR UPDATE SKIP LOCKED))
    RETURNING task_id, job_id)
SELECT array_agg(task_id) AS task_ids, array_agg(job_id) AS job_ids FROM claimed \gset
WITH counted AS (UPDATE jobs SET seq = seq + 1, updated_at = :now WHERE job_id = ANY (:job_ids::bigint[]) RETURNING job_id, seq)
INSERT INTO outbox (stream, seq, body, created_at, delivered)
SELECT 'JOB-' || job_id, seq, repeat('e', 500)::bytea, :now, false FROM counted;
INSERT INTO lane_counts VALUES ('lane_' || :lane::int, :client_id::int, -(:batch::int), :batch::int)
ON CONFLICT (lane, shard) DO UPDATE SET
    queued = lane_counts.queued + excluded.queued, running = lane_counts.running + excluded.running;
WITH counted AS (UPDATE jobs SET seq = seq + 2, updated_at = :now WHERE job_id = ANY (:job_ids::bigint[]) RETURNING job_id, seq)
INSERT INTO outbox (stream, seq, body, created_at, delivered)
SELECT 'JOB-' || job_id, seq - 1 + step, repeat('e', 500)::bytea, :now, false FROM counted, generate_series(0, 1) AS step;
UPDATE tasks SET status = 'done', ended_by = 'complete', worker = 'a worker', lease_expires_at = NULL,
    output = '{"verdict": "good", "confidence": 0.97}', output_hmac = repeat('a', 64)
WHERE task_id = ANY (:task_ids::bigint[]);
INSERT INTO tasks (task_id, job_id, position, activity, lane, status, ready, attempt, failures, priority, lease_sec,
                   created_at, available_at)
SELECT nextval('task_numbers'), job_id, 1, 'work', 'lane_' || :lane::int, 'queued', true, 0, 0, 0, 300, :now, :now
FROM unnest(:job_ids::bigint[]) AS job_id;
INSERT INTO lane_counts VALUES ('lane_' || :lane::int, :client_id::int, :batch::int, -(:batch::int))
ON CONFLICT (lane, shard) DO UPDATE SET
    queued = lane_counts.queued + excluded.queued, running = lane_counts.running + excluded.running;
COMMIT;
