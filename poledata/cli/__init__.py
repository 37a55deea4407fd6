"""What people type: the options that all scripts share, and the sub-commands."""
