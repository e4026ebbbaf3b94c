"""Disks that can be full or read-only: small file systems in memory, where this process may mount them."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

PLENTY = 64 << 20
"""Bytes of a disk on which there is room."""
TRIES = 20


class Folder:
    """A folder on a disk on which nothing goes wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mend(self) -> None:
        """Nothing is broken."""

    def leave(self, room: int) -> None:
        """Not here."""
        raise NotImplementedError("a plain folder cannot be made full")

    def set_read_only(self) -> None:
        """Not here."""
        raise NotImplementedError("a plain folder cannot be made read-only")

    def close(self) -> None:
        """Nothing to release."""


class MountedDisk(Folder):
    """A file system in memory, of a size that can be changed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        mount("-t", "tmpfs", "-o", f"size={PLENTY}", "tmpfs", str(folder))

    def mend(self) -> None:
        """Make room, and let everybody write."""
        mount("-o", f"remount,rw,size={PLENTY}", str(self.folder))

    def leave(self, room: int) -> None:
        """Let a number of bytes be written, no more."""
        stat = os.statvfs(self.folder)
        used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize
        mount("-o", f"remount,size={max(4096, used + room)}", str(self.folder))

    def set_read_only(self) -> None:
        """Let nobody write; as long as a file is open for writing, the kernel refuses."""
        for _ in range(TRIES):
            try:
                mount("-o", "remount,ro", str(self.folder))
                return
            except subprocess.CalledProcessError:
                time.sleep(0.005)

    def close(self) -> None:
        """Unmount."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


Disk = Folder
"""Either."""


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
