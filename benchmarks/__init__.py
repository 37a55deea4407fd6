"""How fast the archive is, beside its disks' limit and beside other tools; `make bench`."""
