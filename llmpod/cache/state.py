"""Not behaviour: the states that a cache directory can be in, as ``DiskTier`` moves between them.

| state | get | put | leaves by |
|---|---|---|---|
| BROKEN | what is known to be on disk | memory only | the next attempt: READY, SCANNING, SHARED or BROKEN |
| SHARED | what the writer has written | memory only | an attempt at every tick: SCANNING when the writer has gone |
| SCANNING | waits a second for the scan | memory, written after the scan | READY or BROKEN |
| READY | what is known to be on disk | memory and disk | a failed write or a lost directory: BROKEN |
"""

from enum import Enum


class Disk(Enum):
    """What the directory is good for at the moment."""

    OFF = "off"  # there is none, by choice
    BROKEN = "broken"  # not usable, or not for writing; tried again later
    SHARED = "shared"  # another process writes; read only
    SCANNING = "scanning"  # ours; what is in it is not known yet
    READY = "ready"
