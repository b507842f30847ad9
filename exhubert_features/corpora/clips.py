"""One clip of a corpus, as it becomes one row of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One labelled recording, or the part of one between ``start`` and ``end`` (seconds).

    ``label`` is the emotion in plain English, the same word in every corpus. ``groups`` names
    what must stay on one side of every split; empty means the speaker. ``extra`` holds what
    only this corpus has. What is not known is empty.
    """

    id: str
    label: str
    file: str = ""  # below the corpus' folder
    start: float | None = None
    end: float | None = None
    speaker: str = ""
    session: str = ""
    split: str = ""
    fold: str = ""
    language: str = ""  # ISO 639-1
    gender: str = ""  # female, male; child where a corpus says no more
    sentence: str = ""
    intensity: str = ""
    corpus: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def owners(self) -> tuple[str, ...]:
        """What it shares with clips of its side: its groups, or its speaker, or only itself."""
        return self.groups or ((self.speaker,) if self.speaker else (f"\0{self.id}",))
