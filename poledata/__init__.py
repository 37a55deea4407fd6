"""Pole Data Manager: archive the telescope's buffer to removable disks, and lose nothing."""

__version__ = "0.1.0"
