"""The database: all SQL is in this package, and no other module uses SQLite.

``db.transaction(conn)`` opens a transaction, one at a time. Each group of tables has a module:
``db.files``, ``db.copies``, ``db.disks``, ``db.findings``, ``db.notices``, … A function that
changes rows is called inside a transaction; none is open while a file is read or hashed.
"""

from poledata.db import (
    content,
    copies,
    database_files,
    disks,
    files,
    findings,
    notices,
    passes,
    rebuild,
    shipments,
    smart,
    sqlite,
)
from poledata.db.connection import connect, connect_again
from poledata.db.sqlite import Connection, transaction

__all__ = ["Connection", "connect", "connect_again", "copies", "database_files", "disks", "files"]
__all__ += [
    "content",
    "findings",
    "notices",
    "passes",
    "rebuild",
    "shipments",
    "smart",
    "sqlite",
    "transaction",
]
