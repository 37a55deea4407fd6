"""The frozen records and enums that the modules hand to each other."""

from poledata.records.of_disks import *  # noqa: F403
from poledata.records.of_files import *  # noqa: F403
from poledata.records.of_health import *  # noqa: F403
from poledata.records.of_notices import *  # noqa: F403
from poledata.records.of_passes import *  # noqa: F403
