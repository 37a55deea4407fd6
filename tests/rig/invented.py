"""Invented drives, as reports of smartctl that emulated.py lives by: only the fields are real."""

from __future__ import annotations

from typing import Any

NAMES = {
    1: "Raw_Read_Error_Rate",
    5: "Reallocated_Sector_Ct",
    9: "Power_On_Hours",
    10: "Spin_Retry_Count",
    184: "End-to-End_Error",
    187: "Reported_Uncorrect",
    188: "Command_Timeout",
    190: "Airflow_Temperature_Cel",
    194: "Temperature_Celsius",
    197: "Current_Pending_Sector",
    198: "Offline_Uncorrectable",
    199: "UDMA_CRC_Error_Count",
}
THRESHOLDS = {1: 44, 5: 10, 10: 97, 184: 99}  # of the attributes that predict a failure
SMALL_BLOCKS = 98_304  # 48 MiB: such a drive keeps what is written to it
LARGE_BLOCKS = 15_628_053_168


def sata(
    serial: str,
    wwn: int,
    raw: dict[int, int] | None = None,
    value: dict[int, int] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A SATA drive; ``raw`` and ``value`` by attribute, ``more`` replaces whole fields."""
    counts = {9: 12345, 190: 31, 194: 31, **(raw or {})}
    table = [_attribute(id, counts.get(id, 0), (value or {}).get(id, 100)) for id in NAMES]
    return {
        "device": {"name": "/dev/sda", "type": "sat", "protocol": "ATA"},
        "model_name": "ST8000NM0055-1RM112",
        "serial_number": serial,
        "wwn": {"naa": wwn >> 60, "oui": wwn >> 36 & 0xFFFFFF, "id": wwn & 0xFFFFFFFFF},
        "firmware_version": "SN04",
        "user_capacity": {"blocks": LARGE_BLOCKS},
        "rotation_rate": 7200,
        "smart_status": {"passed": True},
        "ata_smart_attributes": {"table": table},
        "ata_smart_error_log": {"summary": {"count": 0}},
        **more,
    }


def _attribute(id: int, raw: int, value: int) -> dict[str, Any]:
    threshold = THRESHOLDS.get(id, 0)
    flags = 51 if threshold else 50
    return {
        "id": id,
        "value": value,
        "worst": value,
        "thresh": threshold,
        "flags": {"value": flags},
        "raw": {"value": raw},
    }


def sas(serial: str, wwn: int, grown: int = 0, uncorrected: int = 0, **more: Any) -> dict[str, Any]:
    """A SAS drive; ``more`` replaces whole fields."""
    return {
        "device": {"name": "/dev/sda", "type": "scsi", "protocol": "SCSI"},
        "scsi_vendor": "SEAGATE",
        "scsi_product": "ST8000NM0075",
        "scsi_revision": "E005",
        "user_capacity": {"blocks": LARGE_BLOCKS},
        "rotation_rate": 7200,
        "logical_unit_id": f"0x{wwn:016x}",
        "serial_number": serial,
        "temperature": {"current": 33, "drive_trip": 60},
        "smart_status": {"passed": True},
        "scsi_grown_defect_list": grown,
        "power_on_time": {"hours": 9876},
        "scsi_error_counter_log": {
            "read": _errors(uncorrected),
            "write": _errors(0),
            "verify": _errors(0),
        },
        "rig": {"non_medium_errors": 7},
        **more,
    }


def _errors(uncorrected: int) -> dict[str, Any]:
    return {
        "errors_corrected_by_eccfast": 1000,
        "errors_corrected_by_eccdelayed": 3,
        "errors_corrected_by_rereads_rewrites": 0,
        "total_errors_corrected": 1003,
        "correction_algorithm_invocations": 1003,
        "gigabytes_processed": "5120.250",
        "total_uncorrected_errors": uncorrected,
    }
