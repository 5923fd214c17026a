-- Calls that have ended (call service).

CREATE TABLE calls (
    call_id uuid PRIMARY KEY,
    phone_number text NOT NULL,
    virtual_agent_id text NOT NULL,
    status text NOT NULL
        CHECK (status IN ('ANSWERED', 'FAILED', 'UNKNOWN', 'CANCELED')),
    attempts integer NOT NULL CHECK (attempts >= 0),
    created_at timestamptz NOT NULL,
    dialed_at timestamptz,
    finished_at timestamptz NOT NULL,
    last_error text
);
