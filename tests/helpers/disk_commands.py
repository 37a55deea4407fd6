"""The commands about disks, and what they note."""

from __future__ import annotations

from tests.helpers.world import Run, World


def order(world: World, *args: str, check: int = 0) -> Run:
    """A command of a person; what changes something says in which database."""
    run = world.run_pass(*args, check=check)
    if check == 0:
        assert run.err == f"Database {world.db_path}\n"
    return run


def refused(world: World, *args: str) -> str:
    """The reason; nothing has changed on any disk, in the buffer or in the database."""
    before = [world.db_path.read_bytes(), *map(world.snapshot, (world.mounts, world.buffer))]
    run = world.run_pass(*args, check=2)
    after = [world.db_path.read_bytes(), *map(world.snapshot, (world.mounts, world.buffer))]
    assert before == after
    assert run.out == ""
    return run.err.removeprefix(f"Database {world.db_path}\n")


def archive(world: World, *names: str) -> None:
    """These go to the disks, and leave the buffer."""
    for name in names:
        world.put(name)
    world.run_pass(check=0)
    assert world.waiting() == set()


def notice(world: World, kind: str, key: str) -> str:
    query = "SELECT text FROM notices WHERE kind = ? AND key = ? AND resolved_at IS NULL"
    return "".join(row["text"] for row in world.sql(query, kind, key))


def events(world: World, serial: str) -> list[str]:
    """What happened to a disk, in order."""
    query = "SELECT event FROM disk_events JOIN disks d ON d.id = disk_id WHERE serial = ?"
    return [row["event"] for row in world.sql(f"{query} ORDER BY disk_events.id", serial)]
