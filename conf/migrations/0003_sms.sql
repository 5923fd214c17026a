-- Messages that were sent or reported on, the batches that they went with, and
-- what the provider told of them (services sms and sms_status).

CREATE TABLE sms (
    id uuid PRIMARY KEY,
    phone_number text NOT NULL,
    content text NOT NULL,
    segments smallint NOT NULL CHECK (segments > 0),
    encoding text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('ACCEPTED', 'CONFIRMED', 'FAILED', 'DELIVERED')),
    -- Bit 1 << state: a state that was here before is no news.
    seen_states smallint NOT NULL CHECK (seen_states > 0),
    batch_id uuid,
    received_at timestamptz NOT NULL,
    sent_at timestamptz,
    updated_at timestamptz
);

CREATE TABLE sms_batches (
    batch_id uuid PRIMARY KEY,
    size integer NOT NULL CHECK (size > 0),
    attempts integer NOT NULL CHECK (attempts > 0),
    duration_ms bigint NOT NULL CHECK (duration_ms >= 0),
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    error text
);

-- The last hour's statistics.
CREATE INDEX sms_batches_finished_at ON sms_batches (finished_at);

-- What could not be done; message_id and status as the provider wrote them.
CREATE TABLE sms_update_errors (
    update_id uuid,
    message_id text,
    status text NOT NULL,
    reason text NOT NULL,
    received_at timestamptz NOT NULL,
    PRIMARY KEY (update_id, message_id)
);

-- Updates that wait for their message's row, for 24 h from parked_at. The
-- unique index finds those of a message, too.
CREATE TABLE sms_early (
    no bigserial PRIMARY KEY,
    message_id uuid NOT NULL,
    status text NOT NULL,
    bit smallint NOT NULL,
    update_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (message_id, status, update_id)
);

-- Status changes to be told to the client (sms.status_callback_url), by the
-- dispatcher of this node.id; with dead_at: the client would not take it.
CREATE TABLE sms_notices (
    no bigserial PRIMARY KEY,
    message_id uuid NOT NULL,
    status text NOT NULL,
    changed_at timestamptz NOT NULL,
    node integer NOT NULL,
    dead_at timestamptz,
    last_error text
);

CREATE INDEX sms_notices_waiting ON sms_notices (node, no)
    WHERE dead_at IS NULL;
