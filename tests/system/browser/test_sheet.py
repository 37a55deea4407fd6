"""The sheet for a crate, as a real browser prints it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from poledata.disks import shipments
from poledata.models import Disk, DiskState, Role, Shipment
from tests.helpers import browser

NAME = "fullrate/RCW38/80296951/0000.g3"


def sheet_of(count: int) -> str:
    disks = [
        shipments.SheetDisk(
            Disk(n, f"P{n:02}", Role.PRIMARY, f"ZA12JC{n:02}", f"0x{n}", DiskState.SHIPPED),
            7401,
            8 * 10**12,
            NAME,
            NAME,
            f"P{n:02}-ZA12JC{n:02}.sha512",
            "a" * 128,
        )
        for n in range(1, count + 1)
    ]
    return shipments.as_html(
        Shipment(disks[0].disk, "2026-12-01T00:00:00Z", "x", "3", "Chicago", None), disks
    )


def test_a_crate_of_twelve_disks_prints_as_one_sheet(tmp_path: Path) -> None:
    """On letter paper; what does not fit goes to a second one."""
    binary = browser.program()
    if binary is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    page, printed = tmp_path / "sheet.html", tmp_path / "sheet.pdf"
    for disks, sheets in ((12, 1), (24, 2)):
        page.write_text(sheet_of(disks))
        command = [binary, "--headless", "--no-sandbox", "--disable-gpu"]
        command += [
            f"--user-data-dir={tmp_path}/profile",
            f"--print-to-pdf={printed}",
            page.as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        (count,) = re.findall(rb"/Type /Pages\s.*?/Count (\d+)", printed.read_bytes(), re.DOTALL)
        assert int(count) == sheets
