"""Which faults a run can meet, derived from the calls that it makes, and what must then be so."""

from __future__ import annotations

import errno as e
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tests.campaigns.shim import EMPTY, FOR_EVER, SHORT, Call, Outcome, Rule
from tests.campaigns.stage import Stage
from tests.helpers.invariants import snapshot

ROOM = (e.ENOSPC, e.EDQUOT)
READS = (e.EIO, e.EINTR, SHORT, EMPTY)
WRITES = (e.EIO, *ROOM, e.EINTR, SHORT, EMPTY)
ENTRIES = (e.EIO, *ROOM, e.EROFS, e.ENOENT)
SYNCS = (e.EIO, *ROOM, e.EROFS, e.EINTR)
# What each call can meet, by its manual page. ENOENT of rmdir is no fault: it is what was wanted.
ERRORS: dict[str, tuple[int, ...]] = {
    "create": (*ENTRIES, e.EINTR),
    "open-w": (e.EIO, e.EROFS, e.ENOENT, e.EINTR),
    "open": (e.EIO, e.ENOENT, e.EINTR),
    "read": READS,
    "pread": READS,
    "preadv": (*READS, e.ENODATA),  # direct: as the drive says it
    "write": WRITES,
    "pwrite": WRITES,
    "fsync": SYNCS,
    "fdatasync": SYNCS,
    "syncfs": (e.EIO, *ROOM),
    "writeout": (e.EIO, *ROOM),
    "close": (e.EIO, *ROOM),
    "fallocate": (e.EIO, *ROOM, e.EINTR),
    "ftruncate": (e.EIO, e.EROFS, e.EINTR),
    "mkdir": ENTRIES,
    "link": ENTRIES,
    "rename": ENTRIES,
    "unlink": (e.EIO, e.EROFS, e.ENOENT),
    "rmdir": (e.EIO, e.EROFS),
    "chmod": (e.EIO, e.EROFS),
    "utimens": (e.EIO, e.EROFS),
    "stat": (e.EIO, e.ENOENT),
    "fstat": (e.EIO,),
    "statvfs": (e.EIO, e.EINTR),
    "readdir": (e.EIO,),
    "access": (e.EIO, e.EROFS),
    "flock": (e.EIO, e.EINTR),
    "lock": (e.EIO,),
}


# --- the cells ----------------------------------------------------------------------------


def cells(calls: Iterable[Call], *, all_of: int = 1) -> Iterator[Rule]:
    """Every call of a run × each error it can give: met once, by the first and the last of
    such calls (by each, of at most ``all_of``), and by all of them from the first on."""
    for call, count in Counter(calls).items():
        for action in ERRORS.get(call.kind, ()):
            numbers = range(1, count + 1) if count <= all_of else sorted({1, count})
            yield from (Rule(call, action, number) for number in numbers)
            if action > 0 and action != e.EINTR:  # which is asked again until it ends
                yield Rule(call, action, 1, FOR_EVER)


def spread(rules: Iterable[Rule], count: int, seed: int = 0) -> list[Rule]:
    """So many of them: of every kind of call × error one, before a second of any."""
    shuffled = sorted(rules, key=str)
    random.Random(seed).shuffle(shuffled)
    seen: Counter[tuple[str, int]] = Counter()
    ranks = []
    for rule in shuffled:
        ranks.append(seen[rule.call.kind, rule.action])
        seen[rule.call.kind, rule.action] += 1
    ranked = sorted(zip(ranks, range(len(ranks)), shuffled, strict=True))
    return [rule for _, _, rule in ranked[:count]]


# --- one cell -----------------------------------------------------------------------------


def try_cell(stage: Stage, rule: Rule) -> str | None:
    """Reset, act under the rule, judge, finish without it. What was not as it must be."""
    for _ in range(5):
        stage.reset()
        before = {path: snapshot(path) for path in (stage.world.buffer, stage.world.mounts)}
        outcome = stage.act(rule, timeout_s=30)
        made = outcome.calls.count(rule.call)
        if made >= rule.first:
            break
        rule = replace(rule, first=made or 1)  # threads vary: the last one came sooner, or none
    try:
        judge(stage, rule, outcome)
        if outcome.code == 2:
            changes = [snap.differences(snapshot(path)) for path, snap in before.items()]
            assert changes == [[], []], changes
        stage.read_again()
        stage.world.check(finished=False)
        stage.tidy()
        stage.close_all()
    except AssertionError as fault:
        return f"{rule}: exit {outcome.code}: {fault}"
    return None


def judge(stage: Stage, rule: Rule, outcome: Outcome) -> None:
    """The fault fired, the exit code is of the contract, and what failed is said in words."""
    assert outcome.in_time, "it hangs"
    assert outcome.fired, "the fault did not fire"
    assert outcome.code in (0, 1, 2), (outcome.err, stage.world.log()[-2000:])
    said = outcome.out + outcome.err + stage.world.log()
    assert "Traceback" not in said
    if outcome.code == 2:
        assert rule.call.device in ("database", "source")
        assert "Nothing was" in outcome.err
    elif outcome.code == 1:
        assert is_said(rule, said), f"not said in words: {said[-1500:]}"
        assert not blamed_in_vain(rule, said), blamed_in_vain(rule, said)
    else:
        assert may_be_silent(rule) or is_said(rule, said), f"absorbed in silence: {said[-1500:]}"


NO_ROOM = (
    "disk I/O error|unable to open database|database or disk is full|no room for a copy|"
    "of the database: no room"
)
# What is said where the system's own words for an error do not come through.
OTHER_WORDS = {
    e.EIO: "disk I/O error|malformed|unable to open database|readonly database|may not|"
    "can't be opened",
    e.EROFS: "disk I/O error|unable to open database|readonly database|may not|can't be open",
    e.ENOSPC: NO_ROOM,
    e.EDQUOT: NO_ROOM,
    e.ENOENT: "was removed|came or went|is no directory|no mark|not there|File exists|"
    "file already exists|there is no (database|\\S*manifest)|"
    "disk I/O error|unable to open database|readonly database|MISSING|held some",
    e.EINTR: "disk I/O error",  # fdatasync(2), which SQLite asks once, as it should
    SHORT: "ends at byte",
    EMPTY: "ends at byte|nothing more is written|shrank|has no line|disk I/O error|not a database|"
    "malformed|disk is full|DAMAGED|empty or damaged",
}


def is_said(rule: Rule, said: str) -> bool:
    own = re.escape(os.strerror(rule.action)) if rule.action > 0 else "(?!)"
    return bool(re.search(f"{own}|{OTHER_WORDS.get(rule.action, '(?!)')}", said))


def blamed_in_vain(rule: Rule, said: str) -> list[str]:
    """Warnings about the other disk, which did nothing wrong.

    (Two stand-ins are told apart by a look at the roots of both.)
    """
    if str(rule.call).startswith("fstat") and rule.call.path == "":
        return []
    other = {"primary": "S01", "copy": "P01"}.get(rule.call.device)
    warned = re.compile(rf"WARNING disk-\S+ {other}\b")
    return [line for line in said.splitlines() if warned.search(line)]


# Looking at these changes nothing, or SQLite itself takes no notice (it syncs the directory of
# its journal if it can, rolls back by the journal's content, not by its stat, and opens for
# reading what it can't open for writing: then a write is refused in words).
SILENT_DATABASE = {"open-w", "stat", "fstat", "pread", "lock", "open", "close", "fdatasync"}


def may_be_silent(rule: Rule) -> bool:
    """Whether exit 0 without a word is right: the fault was made good, or harms nothing."""
    call, action = rule.call, rule.action
    if action in (e.EINTR, SHORT, EMPTY, e.ENOENT):
        return True  # asked again, gone on with, or nothing was there to be done
    if call.kind == "stat":
        return call.path == "" or call.device == "database"  # the way to a root, by realpath(3)
    if call.path == ".poledata-buffer" and call.kind in ("open", "fstat"):
        return True  # how coarse the buffer's times are can't be seen: the coarsest is taken
    if call.device == "database":
        return call.kind in SILENT_DATABASE
    if "catalogue.sqlite" in call.path:  # a help, left out where there is no room for it
        return action in (e.ENOSPC, e.EDQUOT)
    return call.kind == "fstat"  # Python's own, in open() and mmap(): ours are raised
