-- The catalogue of the archive. Times are UTC, ISO 8601 (2026-11-23T18:20:57Z).
-- People query this file: names here stay as they are (docs/database.md).

CREATE TABLE disks (
    id             INTEGER PRIMARY KEY,
    label          TEXT NOT NULL,               -- the sticker on the drive: P01
    role           TEXT NOT NULL CHECK (role IN ('primary', 'copy')),
    serial         TEXT NOT NULL UNIQUE,        -- the maker's, as printed or as the drive reports it
    logical_id     TEXT NOT NULL UNIQUE,        -- WWN: 0x5000c500858bfea7
    state          TEXT NOT NULL DEFAULT 'spare'
                   CHECK (state IN ('spare', 'active', 'closed', 'shipped', 'received', 'lost')),
    held_by        TEXT CHECK (held_by IN ('person', 'machine')),
    held_reason    TEXT,
    stand_in       INTEGER NOT NULL DEFAULT 0,  -- 1: a plain directory, for demo and tests only
    capacity_bytes INTEGER,
    used_bytes     INTEGER,
    free_bytes     INTEGER,                     -- what an ordinary user may still fill
    measured_at    TEXT,
    first_used_at  TEXT,
    last_used_at   TEXT,
    errors_running INTEGER NOT NULL DEFAULT 0,  -- passes running in which it failed
    manifest_bytes INTEGER                      -- the size of its manifest when it last changed
);

-- Labels start again at P01 with each season's disk set.
CREATE UNIQUE INDEX one_label_at_the_station ON disks (label)
    WHERE state NOT IN ('shipped', 'received', 'lost');

CREATE TABLE disk_events (
    id      INTEGER PRIMARY KEY,
    disk_id INTEGER NOT NULL REFERENCES disks (id),
    at      TEXT NOT NULL,
    event   TEXT NOT NULL,
    reason  TEXT
);

-- Which disk left in which shipment, since release 2.0.
CREATE TABLE shipments (
    id          INTEGER PRIMARY KEY,
    disk_id     INTEGER NOT NULL REFERENCES disks (id),
    shipped_at  TEXT NOT NULL,
    sheet       TEXT NOT NULL,                    -- shipments/<sheet>.txt, .html
    box         TEXT,
    destination TEXT,
    list_sha512 TEXT                              -- of its packing list; NULL: the list is lost
);

-- What the people up north found on a disk; its newest one counts.
CREATE TABLE receipts (
    id          INTEGER PRIMARY KEY,
    disk_id     INTEGER NOT NULL REFERENCES disks (id),
    list_sha512 TEXT NOT NULL,                    -- of the packing list that it was compared with
    checked_at  TEXT NOT NULL,                    -- when the check ended, by their clock
    checked_by  TEXT NOT NULL,
    imported_at TEXT NOT NULL,
    sha512      TEXT NOT NULL,                    -- of the receipt
    files       INTEGER NOT NULL,                 -- on the packing list
    bad         INTEGER NOT NULL,
    unreadable  INTEGER NOT NULL,
    missing     INTEGER NOT NULL,
    extra       INTEGER NOT NULL,                 -- on the disk, and not on the list
    UNIQUE (disk_id, checked_at)
);

CREATE TABLE files (
    id                     INTEGER PRIMARY KEY,
    name                   TEXT NOT NULL UNIQUE,  -- the path relative to the buffer
    size_bytes             INTEGER NOT NULL,
    sha512                 TEXT NOT NULL,         -- 128 lower-case hexadecimal digits
    mtime_ns               INTEGER NOT NULL,
    archived_at            TEXT,                  -- since when it has a good copy in each role
    removed_from_buffer_at TEXT
);
-- After a crash a pass asks for these: few, however many files there are.
CREATE INDEX files_not_removed ON files (name)
    WHERE archived_at IS NOT NULL AND removed_from_buffer_at IS NULL;
-- When was the last file archived, and how many since then?
CREATE INDEX files_by_archived_at ON files (archived_at, size_bytes);

CREATE TABLE copies (
    file_id     INTEGER NOT NULL REFERENCES files (id),
    disk_id     INTEGER NOT NULL REFERENCES disks (id),
    state       TEXT NOT NULL CHECK (state IN ('good', 'damaged', 'missing')),
    mtime_ns    INTEGER NOT NULL,                 -- as the copy has it on its disk
    written_at  TEXT NOT NULL,
    verified_at TEXT,
    verified_by TEXT CHECK (verified_by IN ('direct', 'evicted', 'cached')),
    PRIMARY KEY (file_id, disk_id)
) WITHOUT ROWID;
CREATE INDEX copies_by_disk ON copies (disk_id, state, verified_at);

-- Files that failed so far. The stat says in which state a file failed: a file that
-- has changed since is tried at once. A file that only waits for a disk has not failed.
CREATE TABLE pending (
    name            TEXT PRIMARY KEY,
    attempts        INTEGER NOT NULL,
    first_failed_at TEXT NOT NULL,
    last_failed_at  TEXT NOT NULL,
    next_try_at     TEXT NOT NULL,
    last_error      TEXT NOT NULL,
    kind            TEXT NOT NULL,                -- the kind of notice it deserves
    device          INTEGER,
    inode           INTEGER,
    size_bytes      INTEGER,
    mtime_ns        INTEGER,
    ctime_ns        INTEGER
) WITHOUT ROWID;

-- Files whose name is archived already and that were hashed once more:
-- the stat they had then, so that none is hashed twice.
CREATE TABLE rehashed (
    name       TEXT PRIMARY KEY,
    device     INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    ctime_ns   INTEGER NOT NULL,
    sha512     TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE smart_checks (
    id             INTEGER PRIMARY KEY,
    disk_id        INTEGER NOT NULL REFERENCES disks (id),
    at             TEXT NOT NULL,
    health         TEXT NOT NULL,
    temperature_c  INTEGER,
    power_on_hours INTEGER,
    attributes     TEXT                           -- JSON
);
CREATE INDEX smart_checks_by_disk ON smart_checks (disk_id, at);

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
CREATE UNIQUE INDEX one_open_notice ON notices (kind, key) WHERE resolved_at IS NULL;
CREATE INDEX notices_by_key ON notices (kind, key, resolved_at);

-- What only a run can learn, until the next look at the same thing. status/conditions.py decides
-- what is wrong because of it.
CREATE TABLE findings (
    kind     TEXT NOT NULL,                       -- as of a notice
    key      TEXT NOT NULL,
    severity TEXT NOT NULL,
    text     TEXT NOT NULL,
    value    REAL,                                -- a number that grows as it gets worse
    found_at TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;

-- What has been sent about a notice through a channel. A row is made when the notice opens, so
-- that what can't be sent now is sent later.
CREATE TABLE deliveries (
    notice_id    INTEGER NOT NULL REFERENCES notices (id),
    channel      TEXT NOT NULL,                   -- a name, never a URL
    attempts     INTEGER NOT NULL DEFAULT 0,      -- tries of the last message, so far
    tried_at     TEXT,
    sent_at      TEXT,                            -- when it was last told as open
    end_sent_at  TEXT,                            -- when its end was told: nothing more is due
    last_error   TEXT,                            -- of the last try; NULL: that went well
    sent_as      TEXT,                            -- its severity at sent_at; NULL: not sent as open
    PRIMARY KEY (notice_id, channel)
) WITHOUT ROWID;
CREATE INDEX deliveries_not_ended ON deliveries (channel) WHERE end_sent_at IS NULL;

-- While one has no end, passes do nothing.
CREATE TABLE pauses (
    id         INTEGER PRIMARY KEY,
    started_at TEXT NOT NULL,
    why        TEXT NOT NULL,
    until      TEXT,                              -- NULL: until somebody resumes
    ended_at   TEXT
);

-- The buffers of this archive; the one that was adopted last counts.
CREATE TABLE buffers (
    id         INTEGER PRIMARY KEY,
    marker     TEXT,                              -- the ID in its marker; NULL: none could be made
    adopted_at TEXT NOT NULL,
    why        TEXT NOT NULL
);

-- What CheckContent found in a file: can its own program read it? No decision rests on it.
CREATE TABLE content_checks (
    file_id    INTEGER PRIMARY KEY REFERENCES files (id),
    checked_at TEXT NOT NULL,
    result     TEXT NOT NULL CHECK (result IN ('ok', 'suspect', 'not checked')),
    detail     TEXT                               -- what the program wrote
);

-- Passes that did something.
CREATE TABLE passes (
    id             INTEGER PRIMARY KEY,
    started_at     TEXT NOT NULL,
    ended_at       TEXT,
    outcome        TEXT,
    files_archived INTEGER NOT NULL DEFAULT 0,
    bytes_archived INTEGER NOT NULL DEFAULT 0,
    files_failed   INTEGER NOT NULL DEFAULT 0
);

-- One row a file: its newest good copy of each role.
CREATE VIEW file_locations AS
SELECT f.name, f.size_bytes, f.sha512,
       p.label AS primary_label, p.serial AS primary_serial,
       c.label AS copy_label, c.serial AS copy_serial,
       f.archived_at
FROM files f
LEFT JOIN disks p ON p.id = (
    SELECT d.id FROM copies JOIN disks d ON d.id = disk_id
    WHERE file_id = f.id AND copies.state = 'good' AND d.role = 'primary'
    ORDER BY written_at DESC, d.id DESC LIMIT 1)
LEFT JOIN disks c ON c.id = (
    SELECT d.id FROM copies JOIN disks d ON d.id = disk_id
    WHERE file_id = f.id AND copies.state = 'good' AND d.role = 'copy'
    ORDER BY written_at DESC, d.id DESC LIMIT 1);
