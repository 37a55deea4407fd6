"""Stations with copies that are damaged or gone."""

from __future__ import annotations

import os

from tests.helpers.world import Run, World


def filled(world: World, *names: str) -> World:
    for number, name in enumerate(names):
        world.put(name, 20_000 + number)
    world.generate()
    world.run_pass(check=0)
    assert world.waiting() == set()
    return world


def repair(world: World, *args: str, check: int = 0) -> Run:
    return world.run_pass("repair", *args, check=check)


def harm(world: World, label: str, name: str) -> None:
    """Other bytes of the same length, as a failing medium gives."""
    path = world.data(label) / name
    times = os.stat(path)
    path.chmod(0o644)
    path.write_bytes(bytes(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def copies(world: World, name: str) -> dict[str, str]:
    """Label → state of every copy of a file."""
    rows = world.sql(
        "SELECT d.label, c.state FROM copies c JOIN files f ON f.id = file_id "
        "JOIN disks d ON d.id = disk_id WHERE f.name = ?",
        name,
    )
    return dict(map(tuple, rows))
