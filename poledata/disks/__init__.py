"""The removable disks: which one is meant, what is on it, and its life from spare to shipped."""
