"""The manifest of a disk in use is gone: it is named, and said what is safe; others go on."""

from __future__ import annotations

from tests.helpers.world import World

SAFE = (
    "Its files are not harmed by that, and the database knows the SHA-512 of each: "
    "data_manager.py verify P01 reads them. It gets no more files; other disks of its role go on."
)


def test_a_disk_without_its_manifest_gets_no_more_files_until_it_is_there_again(
    world: World,
) -> None:
    """The pass, ``check``, ``verify`` and ``close`` name the file; nothing is made in its place."""
    world.put("first.g3", 1000)
    world.generate()
    world.run_pass(check=0)
    manifest = world.disks["P01"] / "manifest-sha512.txt"
    away = manifest.rename(world.root / "away")
    for name in ("second.g3", "third.g3"):
        world.put(name, 1000)
        world.run_pass(check=1)
    assert world.waiting() == set()
    assert world.archived("P02") == {"second.g3", "third.g3"}
    assert world.archived("P01") == {"first.g3"}
    (notice,) = world.sql("SELECT kind, key, text, reopened FROM notices WHERE resolved_at IS NULL")
    why = f"there is no {manifest}"
    assert tuple(notice) == (
        "disk-wrong",
        "P01",
        f"{why}. {SAFE} See disk-wrong in docs/operators.md.",
        0,
    )
    assert f"FAULT P01: {why}. {SAFE}" in world.run_pass("check", check=1).out
    said = world.run_pass("verify", "P01", check=1).out
    assert "there is no manifest-sha512.txt" in said
    assert "P01: 1 copy is good" in said
    assert f"P01: {why}" in world.run_pass("close", "--yes", "P01", check={1, 2}).err
    assert not manifest.exists()
    away.rename(manifest)
    world.run_pass("verify", "P01", check=0)
    assert world.notices() == set()
    world.run_pass(check=0)
    assert world.notices() == set()
