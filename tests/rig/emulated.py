"""A drive that a report of smartctl describes: answers ATA and SCSI commands as that drive would.

The report is a JSON file, read again whenever it changes, so that a test can let a counter grow
between two questions. An object ``rig`` in it makes the drive worse than its report:
``delay_s``, ``not_ready``, ``aborted``, ``no_smart``, ``standby``, ``non_medium_errors``,
``exceptions_off``, ``self_tests`` (code, result, hour; the newest first), ``scan_results``.
Formats: SPC-4, SBC-3, SAT-3, ATA8-ACS.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from typing import Any

ILLEGAL_OPERATION, ILLEGAL_FIELD, ATA_ABORTED = (5, 0x20, 0), (5, 0x24, 0), (0xB, 0, 0)
COUNTERS = {0x02: "write", 0x03: "read", 0x05: "verify"}  # log pages
IN_A_COUNTER = (
    "errors_corrected_by_eccfast",
    "errors_corrected_by_eccdelayed",
    "errors_corrected_by_rereads_rewrites",
    "total_errors_corrected",
    "correction_algorithm_invocations",
    "gigabytes_processed",
    "total_uncorrected_errors",
)
# TEST UNIT READY, START STOP, SEND DIAGNOSTIC, SYNCHRONIZE CACHE, MODE SELECT
NOTHING_TO_SAY = (0x00, 0x1B, 0x1D, 0x35, 0x91, 0x15, 0x55)
READ_COMMANDS, WRITE_COMMANDS = (0x08, 0x28, 0x88), (0x0A, 0x2A, 0x8A)
KEPT_BLOCKS = 1 << 17  # a drive up to this size keeps what is written to it


class Refuses(Exception):
    """The drive answers with this sense: key, code, qualifier."""

    def __init__(self, sense: tuple[int, int, int]) -> None:
        self.sense = sense


def at(value: Any, *keys: str, default: Any = None) -> Any:
    for key in keys:
        if not isinstance(value, dict) or value.get(key) is None:
            return default
        value = value[key]
    return value


def with_checksum(block: bytearray) -> bytes:
    block[511] = -sum(block[:511]) & 0xFF
    return bytes(block)


def parameter(code: int, value: bytes) -> bytes:
    """One parameter of a SCSI log page."""
    return struct.pack(">HBB", code, 0x03, len(value)) + value


class Drive:
    """One drive, from the report at ``path``."""

    def __init__(self, path: str) -> None:
        self._path, self._seen = path, (0, 0)
        self._load()
        self._medium = bytearray(self.blocks * 512 if self.blocks <= KEPT_BLOCKS else 0)

    def _load(self) -> None:
        info = os.stat(self._path)
        if (info.st_mtime_ns, info.st_ino) == self._seen:
            return
        self._seen = (info.st_mtime_ns, info.st_ino)
        with open(self._path) as file:
            self.report: dict[str, Any] = json.load(file)
        self.rig = self.report.get("rig", {})
        self.is_ata = self.report["device"]["protocol"] == "ATA"
        self.serial = self.report["serial_number"]
        self.blocks = self.report["user_capacity"]["blocks"]
        wwn, unit = self.report.get("wwn"), self.report.get("logical_unit_id", "0")
        self.wwn = wwn["naa"] << 60 | wwn["oui"] << 36 | wwn["id"] if wwn else int(unit, 16)

    def answer(self, cdb: bytes, data: bytes) -> tuple[int, bytes, bytes]:
        """Status, sense and data of one command; ``data`` is the host's, or as much room."""
        self._load()
        if cdb[0] not in (0x12, 0xA0):  # INQUIRY, REPORT LUNS: also of a drive that hangs
            time.sleep(self.rig.get("delay_s", 0))
        try:
            self._may_be_unwell(cdb[0])
            if cdb[0] in (0x85, 0xA1) and self.is_ata:
                return self._pass_through(cdb)
            return 0, b"", self._scsi(cdb, data)
        except Refuses as refused:
            key, code, qualifier = refused.sense
            sense = bytes([0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0])
            return 2, sense, b""

    def _may_be_unwell(self, operation: int) -> None:
        if self.rig.get("not_ready") and operation not in (0x03, 0x12):
            raise Refuses((2, 4, 3))
        if self.rig.get("aborted") and operation not in (0x03, 0x12, 0x25, 0x9E):
            raise Refuses((0xB, 0x44, 0))

    # --- SCSI ---

    def _scsi(self, cdb: bytes, data: bytes) -> bytes:
        operation = cdb[0]
        if operation in NOTHING_TO_SAY:
            return b""
        if operation in READ_COMMANDS + WRITE_COMMANDS:
            return self._blocks(cdb, data)
        answers: dict[int, Callable[[bytes], bytes]] = {
            0x03: lambda _: bytes([0x70, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, *self._exception()]),
            0x12: self._inquiry,
            0x1A: self._mode_sense,
            0x25: lambda _: struct.pack(">II", min(self.blocks - 1, 0xFFFFFFFF), 512),
            0x37: self._defects,
            0x4D: self._log_sense,
            0x5A: self._mode_sense,
            0x9E: self._capacity,
            0xB7: self._defects,
        }
        if operation not in answers:
            raise Refuses(ILLEGAL_OPERATION)
        return answers[operation](cdb)

    def _blocks(self, cdb: bytes, data: bytes) -> bytes:
        where = {0: cdb[2:4], 2: cdb[2:6], 8: cdb[2:10]}[cdb[0] >> 4]
        start = 512 * int.from_bytes(where, "big")
        if cdb[0] in WRITE_COMMANDS:
            if self._medium:
                self._medium[start : start + len(data)] = data
            return b""
        return bytes(self._medium[start : start + len(data)]).ljust(len(data), b"\0")

    def _exception(self) -> tuple[int, int]:
        """What the drive calls its own failure."""
        if at(self.report, "smart_status", "passed") is not False:
            return 0, 0
        return at(self.report, "smart_status", "scsi", "asc", default=0x5D), 0

    def _inquiry(self, cdb: bytes) -> bytes:
        if cdb[1] & 1:
            return self._vital_page(cdb[2])
        block = bytearray(96)
        block[2], block[3], block[4], block[7] = 6, 2, 91, 2
        names = ("scsi_vendor", "scsi_product", "scsi_revision")
        texts = [self.report.get(name, "") for name in names]
        if self.is_ata:
            texts = ["ATA", self.report["model_name"], self.report["firmware_version"]]
        for text, start, size in zip(texts, (8, 16, 32), (8, 16, 4), strict=True):
            block[start : start + size] = text.encode()[:size].ljust(size)
        return bytes(block)

    def _vital_page(self, number: int) -> bytes:
        pages: dict[int, Callable[[], bytes]] = {
            0x00: lambda: bytes([0x00, 0x80, 0x83, *([0x89] if self.is_ata else []), 0xB1]),
            0x80: lambda: self.serial.encode(),
            0x83: self._identification,
            0xB1: lambda: struct.pack(">HBB56x", self.report.get("rotation_rate", 1), 0, 2),
        }
        if self.is_ata:
            pages[0x89] = self._ata_information
        if number not in pages:
            raise Refuses(ILLEGAL_FIELD)
        page = pages[number]()
        return struct.pack(">BBH", 0, number, len(page)) + page

    def _identification(self) -> bytes:
        unit = bytes([0x01, 0x03, 0, 8]) + self.wwn.to_bytes(8, "big")
        if self.is_ata:
            return unit
        port = bytes([0x61, 0x93, 0, 8]) + (self.wwn + 1).to_bytes(8, "big")  # 6: SAS
        return unit + port

    def _ata_information(self) -> bytes:
        block = bytearray(568)
        block[4:12], block[12:28], block[28:32] = b"LINUX   ", b"libata".ljust(16), b"3.00"
        block[52], block[56:568] = 0xEC, self._identify()
        return bytes(block)

    def _capacity(self, cdb: bytes) -> bytes:
        if cdb[1] & 0x1F != 0x10:
            raise Refuses(ILLEGAL_OPERATION)
        return struct.pack(">QI20x", self.blocks - 1, 512)

    def _mode_sense(self, cdb: bytes) -> bytes:
        changeable = cdb[2] >> 6 == 1
        flags = 0x08 if self.rig.get("exceptions_off") else 0x10  # DEXCPT, EWASC
        pages = {
            0x08: bytes([0x08, 18, 4]) + bytes(17),
            0x0A: bytes([0x0A, 10]) + bytes(10),
            0x1C: bytes([0x1C, 10, 0x9F if changeable else flags, 0x0F if changeable else 6])
            + bytes(8),
        }
        page = pages.get(0x1C if cdb[2] & 0x3F == 0x3F else cdb[2] & 0x3F)
        if page is None or (page[0] == 0x1C and self.is_ata):
            raise Refuses(ILLEGAL_FIELD)
        if cdb[0] == 0x1A:
            return struct.pack("BBBB", 3 + len(page), 0, 0x10, 0) + page
        return struct.pack(">HBBBBH", 6 + len(page), 0, 0x10, 0, 0, 0) + page

    def _defects(self, cdb: bytes) -> bytes:
        """READ DEFECT DATA: how many have grown; none is listed."""
        grown = self.report.get("scsi_grown_defect_list")
        if grown is None:
            raise Refuses((1, 0x1C, 0))
        if cdb[0] == 0xB7:
            return struct.pack(">BBHI", 0, 0x08 | cdb[1] & 7, 1, grown * 8)
        return struct.pack(">BBH", 0, 0x08 | cdb[2] & 7, min(grown * 8, 0xFFF8))

    def _log_sense(self, cdb: bytes) -> bytes:
        pages = {} if self.is_ata else self._log_pages()
        number = cdb[2] & 0x3F
        pages[0] = bytes(sorted({0, *pages}))
        if cdb[3] or number not in pages or self.is_ata:
            raise Refuses(ILLEGAL_FIELD)
        return struct.pack(">BBH", number, 0, len(pages[number])) + pages[number]

    def _log_pages(self) -> dict[int, bytes]:
        celsius = at(self.report, "temperature", "current", default=0)
        trip = at(self.report, "temperature", "drive_trip", default=0)
        minutes = 60 * at(self.report, "power_on_time", "hours", default=0)
        log = self.report.get("scsi_error_counter_log", {})
        pages = {
            number: self._counter_page(log[name])
            for number, name in COUNTERS.items()
            if name in log
        }
        if (count := self.rig.get("non_medium_errors")) is not None:
            pages[0x06] = parameter(0, count.to_bytes(8, "big"))
        pages[0x0D] = parameter(0, bytes([0, celsius])) + parameter(1, bytes([0, trip]))
        pages[0x10] = b"".join(parameter(n, self._self_test(n)) for n in range(1, 21))
        pages[0x15] = parameter(0, struct.pack(">IB7x", minutes, 0)) + b"".join(
            parameter(n, struct.pack(">IBBB5xQ", minutes, status << 4 | 3, 0x11, 0, 4711))
            for n, status in enumerate(self.rig.get("scan_results", ()), 1)
        )
        pages[0x2F] = parameter(0, bytes([*self._exception(), celsius, 0]))
        return pages

    def _counter_page(self, counters: dict[str, Any]) -> bytes:
        values = [counters[name] for name in IN_A_COUNTER]
        values[5] = int(float(values[5]) * 1e9)
        return b"".join(parameter(n, v.to_bytes(8, "big")) for n, v in enumerate(values))

    def _self_test(self, number: int) -> bytes:
        """The newest is the first; results as in SPC-4, 7.3.22."""
        if number > len(self._tests):
            return bytes(16)
        code, result, hour = self._tests[number - 1]
        return struct.pack(">BBH12x", code << 5 | result, 0, hour)

    @property
    def _tests(self) -> list[list[int]]:
        """Code, result and hour of each self-test, the newest first."""
        result = self.rig.get("self_test_result")
        one: list[list[int]] = [] if result is None else [[1 if self.is_ata else 2, result, 100]]
        tests: list[list[int]] = self.rig.get("self_tests", one)
        return tests

    # --- ATA, through SCSI ---

    def _pass_through(self, cdb: bytes) -> tuple[int, bytes, bytes]:
        if cdb[0] == 0x85:
            feature, count, command = cdb[4], cdb[6], cdb[14]
            lba = cdb[8] | cdb[10] << 8 | cdb[12] << 16
        else:
            feature, count, command = cdb[3], cdb[4], cdb[9]
            lba = cdb[5] | cdb[6] << 8 | cdb[7] << 16
        data, (count, lba) = self._ata(command, feature, count, lba)
        if not cdb[2] & 0x20:  # the registers are not asked for
            return 0, b"", data
        registers = [0, 0, 0, count, 0, lba & 255, 0, lba >> 8 & 255, 0, lba >> 16, 0x40, 0x50]
        return 2, bytes([0x72, 1, 0, 0x1D, 0, 0, 0, 14, 9, 12, *registers]), data

    def _ata(
        self, command: int, feature: int, count: int, lba: int
    ) -> tuple[bytes, tuple[int, int]]:
        """Data, and the registers count and LBA."""
        if command == 0xEC:
            return self._identify(), (count, lba)
        if command == 0xE5:  # CHECK POWER MODE
            return b"", (0x00 if self.rig.get("standby") else 0xFF, 0)
        if command != 0xB0 or self.rig.get("no_smart"):
            raise Refuses(ATA_ABORTED)
        if feature == 0xDA:  # RETURN STATUS
            return b"", (0, 0xC24F00 if at(self.report, "smart_status", "passed") else 0x2CF400)
        answers = {0xD0: self._smart_data, 0xD1: self._thresholds}
        if feature == 0xD5:
            return self._log(lba & 255), (count, lba)
        if feature in answers:
            return answers[feature](), (count, lba)
        return b"", (count, lba)

    def _identify(self) -> bytes:
        block = bytearray(512)

        def word(number: int, value: int) -> None:
            struct.pack_into("<H", block, 2 * number, value & 0xFFFF)

        def text(number: int, value: str, size: int) -> None:
            padded = value.encode()[:size].ljust(size)
            block[2 * number : 2 * number + size : 2] = padded[1::2]
            block[2 * number + 1 : 2 * number + size : 2] = padded[::2]

        text(10, self.serial.rjust(20), 20)
        text(23, self.report["firmware_version"], 8)
        text(27, self.report["model_name"], 40)
        has_smart = int(not self.rig.get("no_smart"))
        is_on = has_smart and int(at(self.report, "smart_support", "enabled", default=True))
        for number, value in {
            **{0: 0x0040, 47: 0x8010, 49: 0x0F00, 50: 0x4000, 53: 7, 63: 7, 75: 31, 76: 0x850E},
            **{60: 0xFFFF, 61: 0x0FFF, 80: 0x07F0, 82: 0x3468 | has_smart, 83: 0x7400},
            **{84: 0x4103, 85: 0x3468 | is_on, 86: 0x3400, 87: 0x4103, 88: 0x407F},
            **{106: 0x6003, 217: self.report["rotation_rate"], 222: 0x10FF},
            **{108 + n: self.wwn >> (48 - 16 * n) for n in range(4)},
        }.items():
            word(number, value)
        struct.pack_into("<Q", block, 200, self.blocks)
        block[510] = 0xA5
        return with_checksum(block)

    def _attributes(self) -> list[dict[str, Any]]:
        table: list[dict[str, Any]] = at(self.report, "ata_smart_attributes", "table", default=[])
        return table

    def _smart_data(self) -> bytes:
        block = bytearray(512)
        struct.pack_into("<H", block, 0, 10)
        for n, attribute in enumerate(self._attributes()):
            start, flags = 2 + 12 * n, attribute["flags"]["value"]
            head = attribute["id"], flags, attribute["value"], attribute["worst"]
            struct.pack_into("<BHBB", block, start, *head)
            block[start + 5 : start + 11] = attribute["raw"]["value"].to_bytes(6, "little")
        block[362], block[363] = 130, 0
        struct.pack_into("<BBHBBB", block, 367, 123, 3, 0, 1, 1, 60)
        return with_checksum(block)

    def _thresholds(self) -> bytes:
        block = bytearray(512)
        struct.pack_into("<H", block, 0, 10)
        for n, attribute in enumerate(self._attributes()):
            block[2 + 12 * n], block[3 + 12 * n] = attribute["id"], attribute["thresh"]
        return with_checksum(block)

    def _log(self, address: int) -> bytes:
        block = bytearray(512)
        block[0] = 1
        if address == 1:  # errors: only how many
            count = at(self.report, "ata_smart_error_log", "summary", "count", default=0)
            struct.pack_into("<H", block, 452, count)
            block[1] = (count - 1) % 5 + 1 if count else 0
        elif address == 6:  # self-tests, the newest last
            for n, (code, result, hour) in enumerate(reversed(self._tests)):
                entry = code, result << 4, hour, 0, 0xFFFFFFFF
                struct.pack_into("<BBHBI", block, 2 + 24 * n, *entry)
            block[508] = len(self._tests)
        elif address == 0:
            block[2] = block[12] = 1
            return bytes(block)
        elif address != 9:  # selective self-tests: none
            raise Refuses(ATA_ABORTED)
        return with_checksum(block)
