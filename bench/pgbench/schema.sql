-- The tables of OMS that a claim and a completion write, with their indexes (oms/storage/tables.py).
CREATE SEQUENCE task_numbers;
CREATE TABLE jobs (
    job_id bigint PRIMARY KEY, plan varchar(100) NOT NULL, plan_version int NOT NULL, reference varchar(200) NOT NULL,
    state varchar(12) NOT NULL, priority int NOT NULL, input text NOT NULL, position int NOT NULL, seq int NOT NULL,
    hmac_key bytea, error text, created_at bigint NOT NULL, updated_at bigint NOT NULL, finished_at bigint
);
CREATE UNIQUE INDEX ux_jobs_reference_plan ON jobs (reference, plan);
CREATE INDEX ix_jobs_plan ON jobs (plan, job_id);
CREATE INDEX ix_jobs_state ON jobs (state, job_id);
CREATE INDEX ix_jobs_finished ON jobs (finished_at, job_id) WHERE finished_at IS NOT NULL;
CREATE TABLE tasks (
    task_id bigint PRIMARY KEY, job_id bigint NOT NULL, position int NOT NULL, activity varchar(100) NOT NULL,
    lane varchar(100) NOT NULL, status varchar(12) NOT NULL, ready boolean NOT NULL, attempt int NOT NULL,
    failures int NOT NULL, token varchar(64), ended_by varchar(12), worker varchar(200), priority int NOT NULL,
    lease_sec int NOT NULL, created_at bigint NOT NULL, available_at bigint NOT NULL, lease_expires_at bigint,
    error text, error_type varchar(64), output_hmac varchar(64), output text, progress double precision,
    note varchar(500)
);
CREATE INDEX ix_tasks_ready ON tasks (lane, priority DESC, available_at, task_id) WHERE status = 'queued' AND ready;
CREATE INDEX ix_tasks_waiting ON tasks (available_at) WHERE status = 'queued' AND NOT ready;
CREATE INDEX ix_tasks_leases ON tasks (lease_expires_at) WHERE status = 'running';
CREATE INDEX ix_tasks_job ON tasks (job_id);
CREATE INDEX ix_tasks_live ON tasks (lane, status, task_id) WHERE status <> 'done';
CREATE TABLE outbox (
    id bigserial PRIMARY KEY, stream varchar(120) NOT NULL, seq int NOT NULL, body bytea NOT NULL,
    created_at bigint NOT NULL, delivered boolean NOT NULL, ledger_index bigint, leaf_hash bytea,
    CONSTRAINT ux_outbox_place UNIQUE (stream, seq)
);
CREATE INDEX ix_outbox_undelivered ON outbox (id) WHERE NOT delivered;
CREATE TABLE lane_counts (
    lane varchar(100), shard int, queued int NOT NULL, running int NOT NULL, PRIMARY KEY (lane, shard)
);

-- One queued task for each job, in three lanes.
INSERT INTO jobs
SELECT n, 'bench', 1, 'ticket-' || n, 'running', 0, '{}', 0, 2, repeat('k', 32)::bytea, NULL, 1, 1, NULL
FROM generate_series(1, :jobs) AS n;
INSERT INTO tasks (task_id, job_id, position, activity, lane, status, ready, attempt, failures, priority, lease_sec,
                   created_at, available_at)
SELECT nextval('task_numbers'), n, 0, 'work', 'lane_' || n % 3, 'queued', true, 0, 0, 0, 300, 1, 1
FROM generate_series(1, :jobs) AS n;
VACUUM ANALYZE;
