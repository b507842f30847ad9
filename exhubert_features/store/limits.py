"""When a shard is large enough to be published."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError

# A store with more shards than this gets larger ones: ten million clips come in 5,000 files.
FEW = 1024


@dataclass(frozen=True, kw_only=True)
class ShardLimits:
    """A shard is published as soon as it reaches one of these."""

    bytes: int = 64 << 20  # a shard is built in memory: writing needs about three times this
    clips: int = 256  # at 100 KB a clip: 25 MB a shard; grows with the store, see FEW
    seconds: float = 300.0  # on a slow encoder a kill shall cost minutes, not hours

    def __post_init__(self) -> None:
        if min(self.bytes, self.clips) < 1:
            raise UsageError(
                f"a shard of {self.clips} clips and {self.bytes} bytes", expected="at least 1"
            )

    def reached(self, clips: int, size: int, seconds: float, *, stored: int) -> bool:
        """Tell whether what was collected is enough.

        Parameters
        ----------
        clips, size, seconds
            What was collected: clips, bytes, and since when.
        stored
            Clips in the store.
        """
        enough = max(self.clips, stored // FEW)
        return clips >= enough or size >= self.bytes or seconds >= self.seconds
