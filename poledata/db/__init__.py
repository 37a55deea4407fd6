"""The database: all SQL is in this package, and no other module uses SQLite.

``db.transaction(conn)`` opens a transaction, one at a time. Each group of tables has a module:
``db.files``, ``db.copies``, ``db.content``, ``db.disks``, ``db.notices``, ``db.passes``,
``db.smart``. A function that changes rows is called inside a transaction; none is open while a file
is read or hashed.
"""

from poledata.db import (
    content,
    copies,
    database_files,
    disks,
    files,
    notices,
    passes,
    rebuild,
    smart,
    sqlite,
)
from poledata.db.connection import connect, connect_again
from poledata.db.sqlite import Connection, transaction

__all__ = ["Connection", "connect", "connect_again", "content", "copies", "database_files", "disks"]
__all__ += ["files", "notices", "passes", "rebuild", "smart", "sqlite", "transaction"]
