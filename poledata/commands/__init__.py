"""The sub-commands of ``data_manager.py``."""
