-- From version 2 (release 1.0.0) to 3.

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
