"""The health of the drives, as smartctl and this program's own rules see it."""
