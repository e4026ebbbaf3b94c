"""Disks that can be full or read-only: small file systems in memory, where this process may mount them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

PLENTY = 64 << 20
"""Size in bytes of a disk that has enough room."""
TRIES = 20


class Folder:
    """A folder on a disk on which nothing goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mend(self) -> None:
        """Do nothing: nothing is broken."""

    def leave(self, room: int) -> None:
        """Raise an error, since a plain folder cannot be made full."""
        raise NotImplementedError("a plain folder cannot be made full")

    def set_read_only(self) -> None:
        """Raise an error, since a plain folder cannot be made read-only."""
        raise NotImplementedError("a plain folder cannot be made read-only")

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class MountedDisk(Folder):
    """A file system in memory, of a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        mount("-t", "tmpfs", "-o", f"size={PLENTY}", "tmpfs", str(folder))

    def mend(self) -> None:
        """Make room, and allow writing."""
        mount("-o", f"remount,rw,size={PLENTY}", str(self.folder))

    def leave(self, room: int) -> None:
        """Leave room for this number of bytes and no more."""
        stat = os.statvfs(self.folder)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        mount("-o", f"remount,size={max(4096, used + room)}", str(self.folder))

    def set_read_only(self) -> None:
        """Make the disk read-only; the kernel refuses while a file is open for writing, so it is tried again."""
        for _ in range(TRIES):
            try:
                mount("-o", "remount,ro", str(self.folder))
                return
            except subprocess.CalledProcessError:
                time.sleep(0.005)

    def close(self) -> None:
        """Unmount the disk."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


Disk = Folder
"""A plain folder or a mounted disk."""


def mount(*arguments: str) -> None:
    """Call mount; ``CalledProcessError`` if it refuses."""
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@cache
def can_mount() -> bool:
    """True if this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            MountedDisk(Path(folder) / "disk").close()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True
