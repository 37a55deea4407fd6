"""Which files of the buffer are data: by ending, by tree, and never below a hidden name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from poledata.config import Config


@dataclass(frozen=True, slots=True)
class Selection:
    """``Extension``, ``Include`` and ``Exclude``; a tree is a relative path, ``*`` is in a part."""

    extensions: tuple[str, ...]
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config) -> Selection:
        return cls(config.extensions, config.include, config.exclude)

    def selects(self, name: str) -> bool:
        """True for a file to archive, by its own name.

        White space after the extension is a bad name, not another extension.
        """
        return name.rstrip().endswith(self.extensions) and not is_hidden(name) and self.covers(name)

    def covers(self, path: str) -> bool:
        """True if a path is in a tree of ``Include``, and in none of ``Exclude``."""
        parts = path.split("/")
        return _is_in(parts, self.include) and not _is_in(parts, self.exclude)

    def may_hold(self, directory: str) -> bool:
        """True if data may be below a directory: it is in a tree, or on the way to one."""
        if self.include == ("*",) and not self.exclude:
            return True  # the quick answer for a buffer of 50,000 directories
        parts = directory.split("/")
        is_on_the_way = any(_agree(parts, tree.split("/")) for tree in self.include)
        return is_on_the_way and not _is_in(parts, self.exclude)

    def is_root(self, directory: str) -> bool:
        """True if a directory is the root of a tree of ``Include``, or on the way to one."""
        parts = directory.split("/")
        trees = (tree.split("/") for tree in self.include if tree != "*")
        return any(len(parts) <= len(tree) and _agree(parts, tree) for tree in trees)


def is_hidden(path: str) -> bool:
    """True if a part of the path begins with a dot: what rsync has not finished, for example."""
    return path.startswith(".") or "/." in path


def _is_in(parts: Sequence[str], trees: Sequence[str]) -> bool:
    split = (tree.split("/") for tree in trees)
    return any(len(parts) >= len(tree) and _agree(parts, tree) for tree in split)


def _agree(parts: Sequence[str], tree: Sequence[str]) -> bool:
    """True if both are the same as far as both go."""
    return all(map(fnmatchcase, parts, tree))


def old_hidden_text(paths: Sequence[str], count: int) -> str | None:
    """Return what is wrong if hidden files are older than a day; ``paths``: a few of them."""
    if not count:
        return None
    files = "1 hidden file is" if count == 1 else f"{count} hidden files are"
    listed = ", ".join(paths[:3]) + (", …" if count > min(3, len(paths)) else "")
    return (
        f"{files} older than a day: {listed}. Hidden files are never archived. Nothing was changed."
    )
