"""Processes that see what a container would see: the nearest thing to one on a machine without a container engine.

    own mounts           a read-only root with this machine's /usr and /etc, Python, the project, and what is mounted
    own process numbers  the command is process 1, and everything that it starts ends with it
    own user             a number without rights, no capabilities, none to be had
    own host name
    not its own          the network: all of them share this machine's loopback

No container engine and no image is involved; "image" below means this machine's Python environment.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SYSTEM = ("/usr", "/etc", "/bin", "/sbin", "/lib", "/lib64")
DEVICES = ("null", "zero", "full", "random", "urandom")
UNSHARE = ("/usr/bin/unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child")
DROP = ("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--clear-groups", "--pdeathsig", "KILL")
"""The last option stands here again: a change of user resets it, and pods would then outlive a killed node."""
KERNELS = ROOT / "pipeline" / "segmentation" / "__pycache__"
"""Compiled kernels. The containers of a test share a copy; in a cluster each compiles them, for half a minute."""


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine, and the path at which the process sees it."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Sandbox:
    """The mounts, the user and the host names of a process; ``folder`` is for the sandbox's own files."""

    folder: Path
    hostname: str
    mounts: Sequence[Mount] = ()
    user: int = 1000
    group: int = 1000
    folder_inside: str = "/"
    """The working directory of the process."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """Further host names and their addresses, in place of a cluster's DNS."""

    def command(self, *command: str) -> list[str]:
        """The arguments that run a command in the sandbox."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "root").mkdir(exist_ok=True)
        names = {"localhost": "127.0.0.1", **self.hosts}
        (self.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in names.items()))
        script = self.folder / "enter.sh"
        script.write_text("\n".join(self._lines(command)) + "\n")
        rootless = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        return ["/usr/bin/setpriv", "--pdeathsig", "KILL", *UNSHARE, *rootless, "/bin/sh", str(script)]

    def _lines(self, command: Sequence[str]) -> list[str]:
        root = self.folder / "root"
        lines = ["set -e", "mount --make-rprivate /", f"echo {shlex.quote(self.hostname)} > /proc/sys/kernel/hostname"]
        lines += [f"mount -t tmpfs -o mode=755 tmpfs {root}", f"mkdir -p {root}/proc {root}/dev/shm {root}/tmp"]
        for path in SYSTEM:
            if os.path.islink(path):
                lines.append(f"ln -s {os.readlink(path)} {root}{path}")
            elif os.path.isdir(path):
                lines += _bind(Path(path), f"{root}{path}", read_only=True)
        lines += [f"touch {root}/dev/{device}; mount --bind /dev/{device} {root}/dev/{device}" for device in DEVICES]
        lines += [f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm", f"mount -t proc proc {root}/proc"]
        lines += [f"mount --bind {self.folder}/hosts {root}/etc/hosts"]
        for mount in sorted([*self.mounts, *_image()], key=lambda mount: len(mount.target)):
            lines += _bind(mount.source, f"{root}{mount.target}", mount.read_only)
        lines.append(f"mount -o remount,ro {root}")
        user = ["/usr/bin/setpriv", f"--reuid={self.user}", f"--regid={self.group}", *DROP]
        inside = shlex.join([*user, "--", "/usr/bin/env", "-C", self.folder_inside, *command])
        return [*lines, f"exec /usr/sbin/chroot {root} {inside}"]


def image_environment() -> dict[str, str]:
    """The variables that an image would set."""
    path = [str(Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    fixed = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": ":".join(path), "PYTHONPATH": str(ROOT), **fixed}


def copy_kernels(folder: Path) -> None:
    """Copy the kernels that this machine has compiled so far to where every user may add to them."""
    shutil.copytree(KERNELS, folder) if KERNELS.exists() else folder.mkdir()
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777)


def _image() -> list[Mount]:
    """The Python environment and the project, at their own places."""
    paths = sorted({ROOT, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()})
    outer = [path for path in paths if not any(path != other and path.is_relative_to(other) for other in paths)]
    return [Mount(path, str(path), read_only=True) for path in outer if not path.is_relative_to("/usr")]


def _bind(source: Path, target: str, read_only: bool = False) -> list[str]:
    place = shlex.quote(target)
    make = f"mkdir -p {place}" if source.is_dir() else f"mkdir -p $(dirname {place}); touch {place}"
    lines = [make, f"mount --rbind {shlex.quote(str(source))} {place}"]
    return [*lines, f"mount -o remount,bind,ro {place}"] if read_only else lines
