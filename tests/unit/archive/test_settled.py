"""Only finished files are archived: left alone for SettleTime, and open for writing by nobody."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from poledata.archive.buffer import is_settled
from poledata.formatting import DAY_S

# --- the rule itself ----------------------------------------------------------------------

TIMES_NS = st.integers(0, 2**33 * 10**9)
SETTLE_S = st.floats(0, 30 * DAY_S)


def settled(mtime_ns: int, ctime_ns: int, settle_s: float, now_s: float) -> bool:
    info = SimpleNamespace(st_mtime_ns=mtime_ns, st_ctime_ns=ctime_ns)
    return is_settled(info, settle_s, now_s)  # type: ignore[arg-type]


@given(TIMES_NS, TIMES_NS, SETTLE_S, st.floats(1, 10 * DAY_S))
def test_what_was_left_alone_for_longer_is_settled(
    mtime_ns: int, ctime_ns: int, settle_s: float, more_s: float
) -> None:
    """SettleTime after the later of both times a file is settled, and stays so."""
    now_s = max(mtime_ns, ctime_ns) / 1e9 + settle_s
    assert settled(mtime_ns, ctime_ns, settle_s, now_s + more_s)


@given(TIMES_NS, st.floats(1, 30 * DAY_S), st.floats(0, 0.99), st.booleans())
def test_what_was_touched_within_settle_time_is_not_settled(
    time_ns: int, settle_s: float, part: float, is_mtime: bool
) -> None:
    """One young time is enough, however old the other one is."""
    times_ns = (time_ns, 0) if is_mtime else (0, time_ns)
    assert not settled(*times_ns, settle_s, time_ns / 1e9 + part * settle_s)


@given(TIMES_NS, TIMES_NS, SETTLE_S, st.floats(1, 365 * DAY_S))
def test_no_time_in_the_future_keeps_a_file_for_ever(
    mtime_ns: int, ctime_ns: int, settle_s: float, ahead_s: float
) -> None:
    """Times further ahead than SettleTime are a wrong clock's: they count as due."""
    now_s = min(mtime_ns, ctime_ns) / 1e9 - settle_s - ahead_s
    assert settled(mtime_ns, ctime_ns, settle_s, now_s)
