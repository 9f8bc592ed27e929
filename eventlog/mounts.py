"""Tell whether a directory is on a mount where append, rename and fsync do not mean what they say."""

from __future__ import annotations

import os
from typing import Final

UNSUITABLE: Final = (
    "fuse",
    "nfs",
    "lustre",
    "wekafs",
    "gpfs",
    "cifs",
    "smb",
    "9p",
    "virtiofs",
    "ceph",
    "afs",
    "beegfs",
)


def unsuitable_mount(path: str, mountinfo: str | None = None) -> str | None:
    """Return the type of the network or FUSE file system that holds `path`, or None when it is a local one.

    Args:
        path: need not exist; the nearest existing parent decides.
        mountinfo: text of /proc/self/mountinfo; None reads it. Where there is no such file, every mount
            is taken for local.
    """
    if mountinfo is None:
        try:
            with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
                mountinfo = file.read()
        except OSError:
            return None
    real = os.path.realpath(path)
    best, best_type = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        point = _unescape(fields[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, best_type = point, after.split(" ")[0]
    return best_type if best_type.startswith(UNSUITABLE) else None


def _unescape(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text
