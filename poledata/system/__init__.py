"""What the operating system offers: paths without links, direct reads, mounts, locks."""
