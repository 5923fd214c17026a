-- Objects that were online when last fetched (callback service), and the
-- claim of each node.id by one journal.

CREATE TABLE objects (
    id bigint PRIMARY KEY CHECK (id >= 0),
    last_seen timestamptz NOT NULL
);

-- Expiry deletes the oldest, in bounded batches.
CREATE INDEX objects_last_seen ON objects (last_seen);

CREATE TABLE nodes (
    node_id integer PRIMARY KEY CHECK (node_id BETWEEN 0 AND 65535),
    journal uuid NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now()
);
