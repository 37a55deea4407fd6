"""The database: all SQL stands in this package, and nobody else speaks to SQLite.

``db.transaction(conn)`` opens the one transaction at a time; the tables have a module each:
``db.files``, ``db.copies``, ``db.disks``, ``db.notices``, ``db.passes``, ``db.smart``. A function
that changes rows is called inside a transaction; none is open while a file is read or hashed.
"""

from poledata.db.connection import (
    APPLICATION_ID,
    BUSY_TIMEOUT_S,
    OLDEST_VERSION,
    SCHEMA_VERSION,
    Connection,
    beside,
    connect,
    connect_again,
    faults,
    is_wal,
    must_be_sound,
    opened_copy,
    temporary_directory,
    transaction,
)

# isort: split
from poledata.db import (
    connection,
    copies,
    database_files,
    disks,
    files,
    notices,
    passes,
    rebuild,
    smart,
)

__all__ = [
    "APPLICATION_ID",
    "BUSY_TIMEOUT_S",
    "OLDEST_VERSION",
    "SCHEMA_VERSION",
    "Connection",
    "beside",
    "connect",
    "connect_again",
    "connection",
    "copies",
    "database_files",
    "disks",
    "faults",
    "files",
    "is_wal",
    "must_be_sound",
    "notices",
    "opened_copy",
    "passes",
    "rebuild",
    "smart",
    "temporary_directory",
    "transaction",
]
