"""The small disk of the torture: a real tmpfs, full for a while now and then."""

from __future__ import annotations

import os
import random
import subprocess
import time
from typing import Final

_ROOMY: Final = 8 << 30
_SLIVER: Final = 64 * 1024


class SmallDisk:
    """A tmpfs that is now roomy, now full to a few blocks. Where mounting is not allowed, a plain directory."""

    def __init__(self, path: str, choice: random.Random) -> None:
        """Mount it; `why_not` tells when that was refused."""
        os.makedirs(path, exist_ok=True)
        self.path = path
        self.times_full = 0
        self._choice = choice
        self._roomy_at = 0.0
        self._full_at = time.monotonic() + choice.uniform(2, 8)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_ROOMY}", "tmpfs", path], capture_output=True, text=True, check=False
        )
        self.why_not = done.stderr.strip() if done.returncode else ""

    def turn(self) -> None:
        """Fill it up or make room again, when it is time."""
        now = time.monotonic()
        if self.why_not:
            return
        if self._roomy_at and now >= self._roomy_at:
            self.make_room()
            self._full_at = now + self._choice.uniform(3, 12)
        elif not self._roomy_at and now >= self._full_at and self._fill():
            self.times_full += 1
            self._roomy_at = now + self._choice.uniform(0.1, 2.5)

    def make_room(self) -> None:
        """Leave room from now on."""
        if not self.why_not:
            subprocess.run(["mount", "-o", f"remount,size={_ROOMY}", self.path], check=True)
            self._roomy_at = 0.0

    def unmount(self) -> None:
        """Take it away, with all that is on it."""
        if not self.why_not:
            subprocess.run(["umount", self.path], check=True)

    def _fill(self) -> bool:
        """Leave no more room than a few blocks; false when others wrote more than that in between."""
        state = os.statvfs(self.path)
        size = (state.f_blocks - state.f_bfree) * state.f_frsize + self._choice.randrange(_SLIVER)
        command = ["mount", "-o", f"remount,size={size}", self.path]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
