"""Mounts: network and FUSE file systems are told from local ones, by the mount that really holds the path."""

from __future__ import annotations

import os
from typing import Any

import pytest

from eventlog.mounts import UNSUITABLE, unsuitable_mount

SAMPLE = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
23 22 0:21 / /proc rw,nosuid shared:12 - proc proc rw
31 22 0:27 / /tmp rw,nosuid shared:5 - tmpfs tmpfs rw,size=1g
40 22 0:40 / /mnt/nfs rw,relatime shared:30 - nfs4 server:/export rw,vers=4.2
41 40 0:41 / /mnt/nfs/local rw,relatime - ext4 /dev/sdb1 rw
42 22 0:42 / /mnt/bucket rw,nosuid shared:31 - fuse.s3fs s3fs rw
43 22 0:43 / /mnt/with\\040space rw - fuse.sshfs host:/dir rw
44 22 0:44 / /mnt/lustre rw - lustre 10.0.0.1@tcp:/fs rw
45 22 0:45 / /mnt/win rw - 9p drvfs rw
46 22 0:46 / /mnt/auto rw - autofs systemd-1 rw
47 22 0:47 / /mnt/over rw - overlay overlay rw
48 22 0:48 / /mnt/xfs rw - xfs /dev/sdc rw
49 22 0:49 / /mnt/cifs rw - cifs //server/share rw
50 22 0:50 / /mnt/ceph rw - ceph mon:/ rw
51 22 0:51 / /mnt/btrfs rw - btrfs /dev/sdd rw
52 22 0:52 / /mnt/zfs rw - zfs pool rw
a line that means nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs/deep/down/store", "nfs4"),
        ("/mnt/bucket/store", "fuse.s3fs"),
        ("/mnt/with space/store", "fuse.sshfs"),
        ("/mnt/lustre/x", "lustre"),
        ("/mnt/win/c", "9p"),
        ("/mnt/cifs", "cifs"),
        ("/mnt/ceph/a", "ceph"),
    ],
)
def test_network_and_fuse_mounts_are_unsuitable(path: str, kind: str):
    assert unsuitable_mount(path, SAMPLE) == kind


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/data",
        "/tmp/x",
        "/mnt/nfs/local/store",
        "/mnt/nfs-not",
        "/mnt/bucketful",
        "/mnt/auto/x",
        "/mnt/over/x",
        "/mnt/xfs/x",
        "/mnt/btrfs",
        "/mnt/zfs",
    ],
)
def test_local_mounts_are_suitable(path: str):
    assert unsuitable_mount(path, SAMPLE) is None


def test_a_container_on_an_overlay_is_suitable():
    assert unsuitable_mount("/app/store", "600 500 0:99 / / rw - overlay overlay rw,lowerdir=/a\n") is None


def test_the_mount_on_top_of_another_counts():
    text = (
        "1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / /mnt/a rw - ext4 /dev/sdb rw\n3 2 0:3 / /mnt/a rw - nfs s:/ rw\n"
    )
    assert unsuitable_mount("/mnt/a/x", text) == "nfs"


def test_a_link_leads_to_the_mount_that_it_points_to(tmp_path: Any):
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    text = f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {os.path.realpath(real)} rw - fuse.x x rw\n"
    assert unsuitable_mount(str(link / "store"), text) == "fuse.x"


def test_nothing_known_is_suitable():
    assert unsuitable_mount("/anything", "") is None


def test_this_machine_is_asked_when_no_text_is_given(tmp_path: Any):
    assert unsuitable_mount(str(tmp_path)) is None or unsuitable_mount(str(tmp_path)).startswith(UNSUITABLE)
