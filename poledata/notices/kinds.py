"""Every kind of notice: its severity, its headline, what is safe, and what to do first.

The steps are the short form for a message at 4 a.m.; docs/operators.md has a section of the same
name with everything.
"""

from __future__ import annotations

from dataclasses import dataclass

from poledata.models import ArchiveCondition, Notice, Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """``headline`` is for one notice (``{key}``: what it is about), ``many`` for several."""

    severity: Severity
    headline: str
    many: str
    safe: str
    steps: tuple[str, ...]


DIGEST = "daily-digest"  # no condition: sent once

_C, _W, _I = Severity.CRITICAL, Severity.WARNING, Severity.INFO
_IN_BUFFER = "The files wait in the buffer; nothing is lost."
_ON_DISKS = "Nothing was written there. Other disks of the role go on."

KINDS = {
    "no-disk": Kind(
        _C, "no disk of this role can take files", "roles have no disk that can take files",
        f"{_IN_BUFFER} But the buffer fills up.",
        ("data_manager.py status: which disks are mounted, which are full?",
         "Mount a spare disk of this role. The next pass uses it automatically.",
         "If none is left, tell the people up north at once."),
    ),
    "buffer-full": Kind(
        _W, "the buffer is filling up", "the buffer is filling up",
        "What is in the buffer is safe until it is full; then the telescope can't write.",
        ("data_manager.py status: if finished files wait, see why (no disk, paused, cron "
         "stopped) and fix that first.",
         "If none wait, something else fills the buffer: sudo du -xh --max-depth=2 and its path.",
         "Never remove files by hand. Tell the people up north when it will be full."),
    ),
    "defect": Kind(
        _C, "the program has a bug", "bugs of the program",
        "All other files and disks were worked on. A file that hit it stays in the buffer.",
        ("Everything else goes on: you need not do anything tonight.",
         "Find the traceback in the log; send it to the people up north.",
         "If it is about one odd file or disk, move the file away, or hold the disk."),
    ),
    "buffer-wrong": Kind(
        _C, "the buffer is not mounted, or another one is", "the buffer is not the right one",
        "Nothing is archived, removed or forgotten until the right buffer is back.",
        ("Is its file system mounted? findmnt and the path in the text; then mount it.",
         "If it does not mount: dmesg -T | tail -50. Tell the people up north at once.",
         "If it was moved or replaced on purpose, run the command in the text."),
    ),
    "pass-stuck": Kind(
        _C, "the pass at work makes no progress", "the pass at work makes no progress",
        _IN_BUFFER,
        ("Look at the kernel's log: dmesg -T | tail -50. Does a disk hang?",
         "End that pass: kill -TERM and its number; if it stays: kill -KILL. Both are safe.",
         "Pull the disk that hangs, or reboot. The next pass goes on automatically."),
    ),
    "database-error": Kind(
        _C, "the database does not respond, or is missing", "problems of the database",
        "What is not registered stays in the buffer; what was registered is on two disks.",
        ("Is its file system full? df -h. Make room, but not by removing the database.",
         "Does another program have it open? sudo fuser -v and the database.",
         "Lost, damaged or incomplete: never make a new one, and empty no disk. generate_db.py "
         "--from-disks makes it from the disks; follow docs/operators.md."),
    ),
    "config-error": Kind(
        _W, "can't be used as it is", "settings can't be used",
        "No file is harmed. Unless the text says that no pass runs, archiving goes on.",
        ("data_manager.py check shows it, too.",
         "If a directory is missing after a reboot, make it, and mount what belongs there.",
         "If its disk is full, make room: df -h. The next pass resolves the notice."),
    ),
    "no-good-copy": Kind(
        _C, "files of this disk have no good copy left", "disks have files without a good copy",
        "Those still in the buffer are copied again. The others may exist only on these drives.",
        ("Do not wipe the drives of their copies, and throw none away.",
         "Tell the people up north today.",
         "Look for the files in .aside/ of the disks, and on other media.",
         "If a drive is dead, try it in another slot and another machine, read-only."),
    ),
    "copy-failed": Kind(
        _W, "can't be archived", "files can't be archived",
        "The file is in the buffer, unchanged, and is tried again automatically.",
        ("The text says why.",
         "Permission denied: the cron user must own the buffer's files.",
         "Input/output error: look at dmesg -T | tail -50 for the disk that fails."),
    ),
    "not-removed": Kind(
        _W, "is archived but stays in the buffer", "archived files stay in the buffer",
        "Everything: the file is in the buffer too.",
        ("The text says which condition was not true.",
         "If it names a disk, look at that disk: is it mounted?",
         "Never remove the file by hand."),
    ),
    "opened-at-removal": Kind(
        _C, "was opened for writing while it was removed", "files were opened while removed",
        "What was archived before is on both disks. What was written afterwards is lost.",
        ("Find the program that still writes to finished files, and who runs it.",
         "Ask them to write that file again under a new name.",
         "Make SettleTime longer than the longest pause of that program."),
    ),
    "name-conflict": Kind(
        _W, "other content has this name", "names have other content",
        "Nothing was overwritten, neither in the buffer nor on a disk.",
        ("Compare size and time of the two files.",
         "Ask the people who write the data which one is right.",
         "If both are wanted, rename the one in the buffer."),
    ),
    "bad-name": Kind(
        _W, "this name can't be archived", "names can't be archived",
        "The file is in the buffer, and stays there until it is renamed.",
        ("Find it: ls -b shows odd characters.",
         "Rename it with the consent of the people who write the data: mv -n"),
    ),
    "hidden-files": Kind(
        _W, "hidden data files are in the buffer", "hidden data files are in the buffer",
        "The files are in the buffer, unchanged; no pass archives or removes them.",
        ("Find them: find BUFFER -name '.*' (BUFFER: the buffer's directory).",
         "If a transfer was interrupted, run it again, then remove what it left.",
         "If it is data, rename it without the dot: the next pass archives it."),
    ),
    "disk-missing": Kind(
        _W, "the disk in use is not there", "disks in use are not there",
        f"{_ON_DISKS} What is on it has its other copy elsewhere.",
        ("If it was unmounted on purpose, mount it again when you can.",
         "Several at once: look at power, cable and controller first.",
         "If it stays away for days: data_manager.py hold and its label."),
    ),
    "disk-wrong": Kind(
        _W, "what is mounted is not this disk", "disks are not what they should be",
        _ON_DISKS,
        ("Compare sticker and serial with the text.",
         "Unmount the wrong one; mount each drive at the place of its own label.",
         "its file system or drive gets no copies: format an empty one with mkfs.xfs."),
    ),
    "disk-read-only": Kind(
        _W, "the disk can't be written to", "disks can't be written to",
        _ON_DISKS,
        ("this user may not write: run the command in the text.",
         "mounted read-only, but not by a person: the drive may be failing: dmesg -T | tail -50"),
    ),
    "disk-error": Kind(
        _W, "the disk returns errors", "disks return errors",
        "What is registered on it has its other copy elsewhere. Other disks go on.",
        ("dmesg -T | tail -50: this drive, its cable, or a whole controller?",
         "If it does not come back, do nothing more.",
         "If it repeats: hold it, try another slot and cable, then verify and unhold."),
    ),
    "spares-low": Kind(
        _W, "few spare disks of this role are left", "roles have few spare disks left",
        "Every file stays in the buffer until it is on two disks.",
        ("Mount a new disk of this role: format it, mount it, generate_db.py.",
         "No drive is left? Tell the people up north when space will run out."),
    ),
    "no-pass": Kind(
        _C, "no pass runs", "archives without a pass",
        _IN_BUFFER,
        ("Is cron running? systemctl status cron; crontab -l as the user who runs the archive.",
         "Start one by hand: data_manager.py --config and the configuration. Read what it prints.",
         "If the machine was off, the next pass resolves this."),
    ),
    "clock": Kind(
        _W, "the clock is behind the database", "the clock is behind the database",
        "Everything. Times in the database may be wrong.",
        ("What time is it? date -u",
         "Set the clock; then look at the program that sets it (chrony, ntp).",
         "If the clock was ahead for a while and is right now, ack it."),
    ),
    "file-open-long": Kind(
        _W, "has been open for writing for a day", "files have been open for writing for a day",
        "The file is in the buffer, unchanged. It is archived when its writer closes it.",
        ("Find the program that has it open: sudo fuser -v and its path in the buffer.",
         "If that program is stuck, ask its owner before you end it.",),
    ),
    "disk-differs": Kind(
        _W, "is not what the database knows", "disks are not what the database knows",
        "Nothing was changed or removed. Files on the disk stay.",
        ("If an older database was restored, or another image of a disk is mounted, put the right "
         "one back.",
         "See what differs: data_manager.py verify and the label.",
         "If files there are not in the database: generate_db.py --from-disks, then verify again."),
    ),
    "smart-stale": Kind(
        _W, "the drives were not queried for a week", "the drives were not queried for a week",
        "Everything. But if a drive began to fail, nobody would notice.",
        ("sudo get_SMART_status.py",
         "Is its line in root's crontab? sudo crontab -l"),
    ),
    "not-told": Kind(
        _W, "nothing can be sent through this channel",
        "nothing can be sent through channels",
        "Everything. But people may not get the next messages.",
        ("data_manager.py notify --test prints what is wrong.",
         "If the network or the mail server is down: messages wait, and are sent later.",
         "Is the address in .env still right?"),
    ),
    "database-locked": Kind(
        _C, "another program keeps the database locked", "the database is locked",
        _IN_BUFFER,
        ("Close the program in the text: a database browser, an editor, a backup.",
         "If it does not close: kill -TERM and its number.",
         "If nobody knows it: sudo fuser -v and the database."),
    ),
    "no-new-files": Kind(
        _W, "nothing was archived for too long", "nothing was archived for too long",
        _IN_BUFFER,
        ("Does the telescope observe? If not, this is normal.",
         "Nothing arrived: look at the program that writes to the buffer.",
         "Files wait: data_manager.py status says why."),
    ),
    "smart-failing": Kind(
        _W, "the drive says that it is failing", "drives say that they are failing",
        "Files that have their other copy on another disk; the text counts those without.",
        ("Several at once: look for what they share: cable, power, controller.",
         "Mount a spare disk of its role: the failing one is held, never a role's last one.",
         "If it still works: data_manager.py hold it, repair it; then take it out."),
    ),
    "smart-warning": Kind(
        _W, "a number of the drive is not as it should be", "drives should be watched",
        "Everything. The disk is still used.",
        ("cable or slot: push the drive in again, or try another slot.",
         "temperature: look at the fans and at the room.",
         "sectors, defects: have a spare of its role ready; read it: data_manager.py verify."),
    ),
    "smart-unknown": Kind(
        _W, "the drive gives no health data", "drives give no health data",
        "Everything. The disk is still used.",
        ("If it failed, nobody would notice: have a spare of its role ready.",
         "If it is behind a USB bridge or a RAID controller, name its type: SmartDevices.",
         "If it used to work, push it in again, then get_SMART_status.py (root)."),
    ),
    "drive-missing": Kind(
        _W, "the drive of a disk in use is not found", "drives of disks in use are not found",
        "Nothing is lost while the drive can be found.",
        ("If somebody took it out, put it back.",
         "Several at once: cable, power or controller.",
         "Push it in again, try another slot; then get_SMART_status.py (root)."),
    ),
    "pass-crashed": Kind(
        _W, "the last pass was killed or crashed", "passes were killed or crashed",
        "Everything: this pass goes on where that one stopped.",
        ("If there was a power cut or a restart, you need not do anything.",
         "Otherwise look for a traceback in the log, and report it."),
    ),
    "copy-damaged": Kind(
        _W, "a copy is damaged or missing", "disks or files have bad copies",
        "Nothing was changed or removed. A file with no good copy at all has its own notice.",
        ("It was changed outside this program, or the drive is failing: dmesg -T | tail -50",
         "If more than a few copies are bad: data_manager.py hold and its label.",
         "Make the copies again from the good ones: data_manager.py repair",
         "When there is time, read all of it: data_manager.py verify and its label."),
    ),
    "not-received": Kind(
        _W, "was shipped, and no receipt has come", "shipped disks have no receipt",
        "What is on it, as far as anybody knows. Its files have their other copy elsewhere.",
        ("Ask the people up north: did the crate arrive, and is check-disk running?",
         "When the receipt comes: data_manager.py received and its file.",
         "Until then keep the disks with the other copies of its files."),
    ),
    "content-suspect": Kind(
        _W, "failed the check of its content", "files failed the check of their content",
        "It is on both disks exactly as it came; nothing was changed or removed.",
        ("Tell the people who write the data: was that file cut off?",
         "If it is all files at once, the check itself may be broken: run it by hand.",
         "If you know of it: data_manager.py ack content-suspect and the name, with --for 365d."),
    ),
    "disk-closed": Kind(
        _I, "is full and closed: take it out", "disks are closed: take them out",
        "Everything: its files are archived twice.",
        ("umount it, take the drive out, compare the serial number, store it.",
         "If few spares of its role are left, mount one."),
    ),
    "paused": Kind(
        _I, "the archive is paused", "the archive is paused",
        f"{_IN_BUFFER} But the buffer fills up.",
        ("If that work is done: data_manager.py resume",),
    ),
    DIGEST: Kind(_I, "{key}", "daily digests", "Everything: it is only a report.", ()),
}  # fmt: skip
SEVERITIES = {name: kind.severity for name, kind in KINDS.items()}
DISK_KINDS = ("disk-missing", "disk-wrong", "disk-read-only", "disk-error", "defect")
SMART_KINDS = ("smart-failing", "smart-warning", "smart-unknown", "drive-missing")
FILE_KINDS = ("copy-failed", "not-removed", "name-conflict", "bad-name")


def own_headline(notice: Notice | ArchiveCondition) -> str | None:
    """Return the first sentence of one that says more than its kind's headline, else None.

    If the database itself can be used, that is what an incomplete one lacks.
    """
    if notice.kind == "database-error" and notice.key != "database":
        return notice.text.partition(". ")[0]
    return None
