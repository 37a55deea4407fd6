"""Text is plain American technical English: what is left of other words may only shrink."""

from __future__ import annotations

import pytest

from tests.helpers.words import BANNED, REPO, count, found_in, listed, text_of

AGAIN = "python -m tests.helpers.words > tests/unit/words_left.txt"


def test_no_file_gets_more_banned_words() -> None:
    """A file that is not in the list has none."""
    more = count() - listed()
    found = {name: sorted(set(found_in(text_of(REPO / name)))) for name in more}
    assert not more, f"reword them (tests/helpers/words.py says how): {found}"


def test_the_list_shrinks_with_what_is_reworded() -> None:
    """Once a file has fewer, it may not have more again."""
    fewer = listed() - count()
    assert not fewer, f"fewer are left than listed; note it: {AGAIN}: {dict(fewer)}"


@pytest.mark.parametrize("phrase", BANNED)
def test_each_banned_phrase_is_found(phrase: str) -> None:
    """Also where it begins a sentence, is part of a name, or goes on in the next line."""
    assert found_in(f"{phrase.capitalize()} here") == [phrase.capitalize()]
    assert found_in(f"was_{phrase}_x") == [phrase]
    assert len(found_in(phrase.replace(" ", "\n    # "))) == 1
    assert phrase not in found_in(f"x{phrase}") + found_in(f"{phrase}x")


@pytest.mark.parametrize("text", ["1 files", "1 good copies", "Archived   1 files, 5 kB"])
def test_a_wrong_plural_is_found(text: str) -> None:
    assert len(found_in(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "1 file",
        "11 files",
        "0.1 seconds",
        "recommend",
        "1 TB disks are",
        "SELECT 1 FROM files",
        "stand-in",
        "P01 files",
    ],
)
def test_what_is_right_is_not_found(text: str) -> None:
    assert found_in(text) == []
