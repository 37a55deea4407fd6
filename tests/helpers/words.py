"""Words and plurals that the project's text no longer uses, and how many are left in each file.

``python -m tests.helpers.words > tests/unit/words_left.txt`` notes what is left, after rewording.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LEFT = REPO / "tests/unit/words_left.txt"
# What replaces each of them: plain American technical English, as an engineer would say it.
BANNED = (
    # words
    "said",  # "reported", "printed", "is"
    "told of",  # "notified about", "reported"
    "stands",  # "is"
    "mend",  # "fix"
    "mends",
    "mended",
    "whoever",  # "anyone who"
    "whatever",  # "everything that", "any"
    "anew",  # "again"
    "lest",  # "so that … not"
    "till",  # "until"
    "for ever",  # "forever", "never … again"
    "but for",  # "except"
    "lets go",  # "releases"
    "letting go",
    "lettings-go",
    "is himself",  # "is the right disk"
    "is itself",
    "not itself",
    "it is so",  # "that is the case"
    "is it so",
    "stays it so",  # "if that does not help"
    "word of",  # "unverified copies"
    "what lies there",  # "everything there"
    "doubtless",
    "surely",  # "Are you sure …?"
    "whither",
    "beforehand",  # "before"
    # expressions
    "is all there, and whole",  # "Did everything arrive intact?"
    "left alone, and said",  # "skipped and reported"
    "loose cable damages",  # "because a loose cable does not damage data"
    "the second time running",  # "twice in a row"
    "two passes running",
    "three passes running",
    "one would rather look",  # "with charts"
    "the copy not read for longest",  # "Oldest verification"
    "the room lasts",  # "when space will run out"
    "lacks the wanted room",  # "without enough free space"
    "the mute delay",  # "a hung drive delays no other"
    "slip of the pen",  # "typo"
    "keep its word",  # "ENOSPC after preallocation is an I/O error"
    "keeps its word",
    "of worth",  # "that you want to keep"
)
COUNTED = (
    "attempts|bytes|checks|columns|commands|copies|days|disks|drives|drills|errors|events|faults"
)
COUNTED += "|files|hours|keys|lines|mails|manifests|messages|minutes|months|names|notices|passes"
COUNTED += "|problems|rows|seconds|sectors|tests|times|tries|weeks|words|years"
# Between number and noun: "1 good copies", but neither "SELECT 1 FROM copies" nor "1 TB disks".
BETWEEN = "(?!(?:and|by|from|in|of|or|to|[kmgt]?b|s|min|h) )[a-z]+"
_SPACE = r"""(?:[\s#"'*]+)"""  # a comment, a string and a paragraph go on in the next line
_PHRASES = "|".join(
    re.escape(phrase).replace(r"\ ", _SPACE) for phrase in sorted(BANNED, key=len, reverse=True)
)
PATTERN = re.compile(
    rf"(?<![A-Za-z])(?:{_PHRASES})(?![A-Za-z])"
    rf"|(?<![\w.,:/\-])1 (?:{BETWEEN} )?(?:{COUNTED})(?![A-Za-z])",
    re.IGNORECASE,
)
TEXTS = ("*.py", "*.md", "*.txt", "*.sql", "*.html", "*.js", "*.sh", "*.c", "*.config", "*.cfg")
TEXTS += ("*.toml", "Makefile", "run", "init", "crontab", "logrotate", "sudoers", "disk-map*")
TEXTS += ("check-disk*", ".env.example", ".gitignore")
ELSEWHERE = {".git", ".venv", "venv", "build", "dist", "demo", "wheelhouse", ".hypothesis"}
# This list itself, what it notes, and what tools wrote.
EXEMPT = {"tests/helpers/words.py", "tests/unit/words_left.txt", "tests/unit/test_words.py"}
RELEASED = "\n## 1."  # entries of CHANGELOG.md below are as they were published


def _is_own(path: Path) -> bool:
    """True for a file itself; a link to one has its text from there."""
    return path.is_file() and not path.is_symlink()


def texts() -> Iterator[Path]:
    """Every text of the project that people read, code with its comments and names included."""
    found = {path for name in TEXTS for path in REPO.rglob(name) if _is_own(path)}
    for path in sorted(found):
        parts = path.relative_to(REPO).parts
        ours = not any(part in ELSEWHERE or part.endswith(".egg-info") for part in parts)
        if ours and "/".join(parts) not in EXEMPT:
            yield path


def text_of(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    return text.partition(RELEASED)[0] if path.name == "CHANGELOG.md" else text


def found_in(text: str) -> list[str]:
    """The banned words and wrong plurals in a text, as they are written there."""
    return [" ".join(match[0].split()) for match in PATTERN.finditer(text)]


def count() -> Counter[str]:
    """File → how many it has; files without any are left out."""
    counts = {str(path.relative_to(REPO)): len(found_in(text_of(path))) for path in texts()}
    return Counter({name: number for name, number in counts.items() if number})


def listed() -> Counter[str]:
    """What is noted as left."""
    lines = [line.split() for line in LEFT.read_text(encoding="utf-8").splitlines()]
    return Counter({name: int(number) for number, name in lines})


if __name__ == "__main__":
    for name, number in sorted(count().items()):
        print(number, name)
