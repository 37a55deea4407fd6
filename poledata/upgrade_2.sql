-- From version 1 to 2: what sending notices needs. Nothing was sent in version 1.

DROP TABLE deliveries;

ALTER TABLE notices RENAME TO notices_1;

CREATE TABLE notices (
    id           INTEGER PRIMARY KEY,
    kind         TEXT NOT NULL,
    key          TEXT NOT NULL,                   -- what it is about: a label, a file, a role
    severity     TEXT NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    text         TEXT NOT NULL,
    value        REAL,                            -- a number that grows as it gets worse
    opened_at    TEXT NOT NULL,
    reopened     INTEGER NOT NULL DEFAULT 0,      -- how often it came back within a day
    times_sent   INTEGER NOT NULL DEFAULT 0,
    last_sent_at TEXT,
    resolved_at  TEXT,
    acked_until  TEXT,
    acked_value  TEXT                             -- its value then: silent until it is more
);

INSERT INTO notices (id, kind, key, severity, text, opened_at, times_sent, last_sent_at,
    resolved_at, acked_until, acked_value)
SELECT id, kind, key, severity, text, opened_at, times_sent, last_sent_at,
    resolved_at, acked_until, acked_value FROM notices_1;

DROP TABLE notices_1;

CREATE UNIQUE INDEX one_open_notice ON notices (kind, key) WHERE resolved_at IS NULL;
CREATE INDEX notices_by_key ON notices (kind, key, resolved_at);

-- What has been said of a notice through a channel. A row is made when the notice opens, so
-- that what can't be sent now is sent later.
CREATE TABLE deliveries (
    notice_id    INTEGER NOT NULL REFERENCES notices (id),
    channel      TEXT NOT NULL,                   -- a name, never a URL
    attempts     INTEGER NOT NULL DEFAULT 0,      -- tries of the last message, so far
    tried_at     TEXT,
    sent_at      TEXT,                            -- when it was last told as open
    end_sent_at  TEXT,                            -- when its end was told: nothing more is due
    last_error   TEXT,                            -- of the last try; NULL: that went well
    PRIMARY KEY (notice_id, channel)
) WITHOUT ROWID;
CREATE INDEX deliveries_not_ended ON deliveries (channel) WHERE end_sent_at IS NULL;

CREATE INDEX files_by_archived_at ON files (archived_at, size_bytes);
