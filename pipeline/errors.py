"""Every error that petaseg raises on purpose.

    PetasegError
    ├── ConfigError        a run file, an option or an argument is wrong; nothing was computed
    ├── VolumeError        a volume is missing, has the wrong shape, type or unit, or cannot be opened
    │   └── BoundsError    a box reaches outside a volume
    ├── ModelError         weights, card and architecture do not fit each other
    │   └── WorkerEnvironmentError   a worker computes other bytes than the run
    ├── StorageError       an object could not be read or written (full disk, read-only, network)
    │   └── CorruptError   stored bytes differ from what was recorded
    ├── LedgerError        the run directory's records cannot be used
    ├── LeaseError         another driver works on this run
    ├── ClusterError       SLURM or Kubernetes refused a request, or cannot be reached
    └── StageFailed        some chunks of a stage failed after all retries

A message gives the value, the rule and the remedy, in this order; ``counted`` writes its numbers of things.
"""


def counted(number: int, noun: str) -> str:
    """A number of things in a message: ``1 chunk``, ``1,234 chunks``; the noun is one of those that only get an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class PetasegError(Exception):
    """Base of all errors raised on purpose; the command line prints its message without a traceback."""


class ConfigError(PetasegError, ValueError):
    """A run file, an option or an argument is wrong; nothing was computed."""


class VolumeError(PetasegError):
    """A volume is missing, has the wrong shape, type or unit, or cannot be opened."""


class BoundsError(VolumeError, ValueError):
    """A box reaches outside a volume."""


class ModelError(PetasegError):
    """Weights, card and architecture do not fit each other."""


class WorkerEnvironmentError(ModelError):
    """A worker computes other bytes than the run, or has another kind of device; another worker may do."""


class StorageError(PetasegError, OSError):
    """An object could not be read or written: a full disk, a read-only folder, a lost network."""


class CorruptError(StorageError):
    """Stored bytes differ from what was recorded when they were written."""


class LedgerError(PetasegError):
    """The records of a run directory cannot be used."""


class LeaseError(PetasegError):
    """Another driver works on this run."""


class ClusterError(PetasegError):
    """SLURM or Kubernetes refused a request, or cannot be reached."""


class StageFailed(PetasegError):  # noqa: N818  (it is a verdict on a stage, not a slip of the caller)
    """Some chunks of a stage failed after all retries; the message names them and the command that retries them."""
