"""A guest machine with drives of known serials and WWNs: see machine.py."""
