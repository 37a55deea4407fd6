"""A lease is trusted only where the system sees every writer; elsewhere files wait longer."""

from __future__ import annotations

import pytest

from poledata.archive.buffer_writers import Facts, WriterRule, rule, writable_exports
from poledata.settings import RemoteWriters

AUTO, YES, NO = RemoteWriters.AUTO, RemoteWriters.YES, RemoteWriters.NO
NOT_TRUSTED = ["fuse.sshfs", "fuse.bindfs", "fuse", "fuseblk", "nfs", "nfs4", "cifs", "9p"]

NOT_TRUSTED += ["overlay", "ecryptfs", "vfat", "exfat", "ntfs3", "zfs", "ceph", "unheard-of"]


# --- the rule -------------------------------------------------------------------------------


@pytest.mark.parametrize("fs_type", ["ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs"])
def test_a_lease_is_trusted_on_a_file_system_of_this_kernel(fs_type: str) -> None:
    """Unless another host may write there."""
    assert rule(Facts(fs_type), AUTO) == WriterRule(
        True, f"{fs_type} of this host, not exported by NFS"
    )
    assert rule(Facts(fs_type), NO) == WriterRule(
        True, f"{fs_type} of this host, and RemoteWriters = no"
    )
    assert rule(Facts(fs_type), YES) == WriterRule(
        False, "RemoteWriters = yes: another host may write"
    )


@pytest.mark.parametrize("remote", RemoteWriters)
@pytest.mark.parametrize(
    "fs_type",
    NOT_TRUSTED,
)
def test_a_lease_is_trusted_on_no_other_file_system(fs_type: str, remote: RemoteWriters) -> None:
    """Whatever the configuration says of other hosts: the writer may be on this one."""
    assert rule(Facts(fs_type), remote) == WriterRule(
        False, f"{fs_type} does not show writers on its other side"
    )


def test_a_lease_is_not_trusted_where_this_host_exports_the_buffer() -> None:
    """Or may do so; ``no`` says that nobody writes there all the same."""
    exported = Facts("xfs", ("/buffer",))
    assert rule(exported, AUTO) == WriterRule(False, "this host exports /buffer by NFS")
    assert rule(exported, NO).trusts_leases
    assert rule(Facts("xfs", None), AUTO) == WriterRule(
        False, "this host serves NFS, and this user can't see what it exports"
    )
    assert rule(Facts("xfs", None), NO).trusts_leases


def test_a_lease_is_not_trusted_on_a_mount_that_is_gone() -> None:
    """It was unmounted lazily."""
    assert rule(Facts(None), AUTO) == WriterRule(False, "the buffer's mount is gone")


# --- NFS ------------------------------------------------------------------------------------

ETAB = """\
# Version 1.1
/buffer\t10.0.0.0/8(rw,sync,wdelay,hide,nocrossmnt,secure,root_squash)
/north\t*(ro,sync,wdelay)
/both\t*(ro,sync) daq(rw,sync)
/with\\040blank daq(rw)
/no/options\tdaq
"""


def test_an_export_table_names_what_others_may_write_to() -> None:
    """As exportfs(8) and the kernel write it; a read-only export has no writers."""
    assert list(writable_exports(ETAB)) == ["/buffer", "/both", "/with blank"]
