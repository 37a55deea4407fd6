"""Stations whose database is lost and made from the disks."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.world import Run, World

NAME = "fullrate/RCW38/80296951/0000.g3"
NAMES = {NAME, "fullrate/RCW38/80296951/0001.g3", "empty.g3"}
FILES = "SELECT name, size_bytes, sha512, mtime_ns FROM files ORDER BY name"
DISKS = (
    "SELECT label, role, serial, logical_id, state, stand_in FROM disks "
    "WHERE state <> 'spare' ORDER BY role DESC, label"
)
COPIES = (
    "SELECT f.name, d.label, c.state, c.mtime_ns FROM copies c JOIN files f ON f.id = c.file_id "
    "JOIN disks d ON d.id = c.disk_id ORDER BY 1, 2"
)


def rebuilt(world: World, *args: str, check: int = 0) -> Run:
    return world.run("generate_db.py", "--from-disks", *args, check=check)


def filled(world: World) -> World:
    """Three files on P01 and S01; the database is still there."""
    for number, name in enumerate(sorted(NAMES)):
        world.put(name, 3000 * number, mtime_s=1_700_000_000.5 + number)
    world.generate()
    world.run_pass(check=0)
    return world


def lose_database(world: World) -> Path:
    """As it was, moved away; its copies on disks that are not closed are lost, too."""
    for disk in world.disks.values():
        if not (disk / "tagmanifest-sha512.txt").exists():
            (disk / "catalogue.sqlite").unlink(missing_ok=True)
    aside = world.root / "lost.sqlite"
    world.db_path.rename(aside)
    return aside


def rows(world: World, query: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in world.sql(query)]
