"""Notices: what kinds there are, which are open, and how they reach people."""
