-- From version 2 (release 1.0.0) to 3.

-- The buffers of this archive; the one that was adopted last counts.
CREATE TABLE buffers (
    id         INTEGER PRIMARY KEY,
    marker     TEXT,                              -- the ID in its marker; NULL: none could be made
    adopted_at TEXT NOT NULL,
    why        TEXT NOT NULL
);

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
INSERT INTO findings (kind, key, severity, text, value, found_at)
    SELECT kind, key, severity, replace(text, ' See ' || kind || ' in docs/operators.md.', ''), value,
        opened_at
    FROM notices WHERE resolved_at IS NULL AND (kind IN (
        'no-disk', 'copy-damaged', 'no-good-copy', 'opened-at-removal', 'disk-closed', 'pass-crashed',
        'disk-missing', 'disk-wrong', 'disk-read-only', 'disk-error', 'config-error',
        'smart-failing', 'smart-warning', 'drive-missing')
        OR kind = 'database-error' AND key NOT IN ('journal', 'database')
        OR kind = 'name-conflict' AND key NOT IN (SELECT name FROM pending));

-- The size of its manifest when it last changed.
ALTER TABLE disks ADD COLUMN manifest_bytes INTEGER;

-- Its severity when it was last sent as open.
ALTER TABLE deliveries ADD COLUMN sent_as TEXT;
UPDATE deliveries SET sent_as = (SELECT severity FROM notices WHERE id = notice_id)
    WHERE sent_at IS NOT NULL AND end_sent_at IS NULL;
-- A disk may be received. SQLite can't alter a CHECK; its documentation (lang_altertable.html, 7)
-- changes the text of the schema, as long as no row on disk changes.
PRAGMA writable_schema = ON;
UPDATE sqlite_master SET sql = replace(sql, '''shipped'', ''lost''', '''shipped'', ''received'', ''lost''')
    WHERE type = 'table' AND name = 'disks';
PRAGMA writable_schema = RESET;
DROP INDEX one_label_at_the_station;
CREATE UNIQUE INDEX one_label_at_the_station ON disks (label)
    WHERE state NOT IN ('shipped', 'received', 'lost');

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

-- What CheckContent found in a file: can its own program read it? No decision rests on it.
CREATE TABLE content_checks (
    file_id    INTEGER PRIMARY KEY REFERENCES files (id),
    checked_at TEXT NOT NULL,
    result     TEXT NOT NULL CHECK (result IN ('ok', 'suspect', 'not checked')),
    detail     TEXT                               -- what the program wrote
);
