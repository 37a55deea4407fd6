"""Every query on the database: all the SQL there is, beside schema.sql, db.py and dbfiles.py.

Each function takes the connection first. Changes are to be made inside
``db.transaction``; none is open while a file is read, written or hashed.
"""

from poledata.catalogue.of_copies import *  # noqa: F403
from poledata.catalogue.of_disks import *  # noqa: F403
from poledata.catalogue.of_files import *  # noqa: F403
from poledata.catalogue.of_health import *  # noqa: F403
from poledata.catalogue.of_notices import *  # noqa: F403
from poledata.catalogue.of_passes import *  # noqa: F403
from poledata.catalogue.of_rebuild import *  # noqa: F403
