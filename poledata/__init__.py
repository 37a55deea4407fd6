"""Pole Data Manager: archive the telescope's buffer to removable disks, and lose nothing."""

import gc

__version__ = "1.0.0"

# What a script loads is no garbage: cron starts one each minute, and need not look for it.
gc.set_threshold(20_000)
