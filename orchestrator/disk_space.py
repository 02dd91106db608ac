"""Whether a disk has room, and how to say so."""

import shutil
from dataclasses import dataclass
from pathlib import Path

LEAST_FREE_BYTES = 2**30
"""Less than this is too little for a campaign to go on."""

MOST_USED = 0.90
"""A fuller disk is worth a warning."""


@dataclass(frozen=True)
class DiskSpace:
    """Of the file system that holds a folder."""

    free_bytes: int
    total_bytes: int

    @classmethod
    def of(cls, folder: Path) -> "DiskSpace":
        """Of a folder, or of the nearest one above it that exists."""
        folder = folder.resolve()
        usage = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
        return cls(usage.free, usage.total)

    @property
    def used(self) -> float:
        """Share of what is used, as `df` tells it: 0 to 1."""
        return 1 - self.free_bytes / self.total_bytes if self.total_bytes else 0.0

    @property
    def is_too_little(self) -> bool:
        """Whether a campaign is about to stop."""
        return self.free_bytes < LEAST_FREE_BYTES

    @property
    def is_scarce(self) -> bool:
        """Whether it is worth a warning."""
        return self.is_too_little or self.used >= MOST_USED

    @property
    def told(self) -> str:
        """`98 % full, 0.4 GiB free`."""
        return f"{100 * self.used:.0f} % full, {self.free_bytes / 2**30:.1f} GiB free"
