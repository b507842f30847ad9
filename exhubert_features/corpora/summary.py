"""What was prepared, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..spec import CLASSES
from .emoset import emoset, facts_of
from .preparing import Prepared
from .six_classes import Mapped, shipped_map


def summary_lines(prepared: Prepared) -> Iterator[str]:
    """Clips by label and class, parts, and everything a reader should beware of."""
    clips = prepared.clips
    speakers = len({clip.speaker for clip in clips} - {""})
    languages = " ".join(sorted({clip.language for clip in clips} - {""}))
    yield (
        f"{prepared.corpus.name}: {len(clips):,} clips, "
        f"{f'{speakers:,} speakers' if speakers else 'speakers unknown'}"
        f"{f', {languages}' if languages else ''}"
    )
    yield from _label_lines(prepared)
    yield from _part_lines(prepared)
    yield from _left_out_lines(prepared)
    yield from _note_lines(prepared)


def list_lines() -> Iterator[str]:
    """List the 37 corpora of EmoSet++ in a table, and how those without a parser are read."""
    rows = [("corpus", "prepare as", "languages", "size", "access", "licence")]
    for facts in emoset().values():
        size, languages = facts.size, facts.languages or "?"
        rows.append(
            (facts.name, facts.parser or "generic", languages, size, facts.access, facts.licence)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(f"{cell:<{width}}" for cell, width in cells).rstrip()
    yield ""
    yield (
        "These 37 are EmoSet++, on which the released ExHuBERT was fine-tuned. generic reads them, "
        "and any other corpus, by a table with the columns file and label. Nothing is downloaded."
    )


def map_lines() -> Iterator[str]:
    """Write the six-class map as CSV, to begin one's own with."""
    yield "label,class,status,alternative"
    for mapped in dict.fromkeys(shipped_map().rows.values()):
        numbers = ["" if n is None else str(n) for n in (mapped.number, mapped.alternative)]
        yield f"{mapped.label},{numbers[0]},{mapped.source},{numbers[1]}"


def _label_lines(prepared: Prepared) -> Iterator[str]:
    counts = Counter(clip.label for clip in prepared.clips)
    width = max(map(len, counts))
    for label, mapped in prepared.classes.items():
        yield f"  {label:<{width}}  {counts[label]:>6,}  {_class_words(mapped)}"
    for label, mapped in prepared.classes.items():
        if mapped and mapped.source == "ambiguous":
            note = f" ({mapped.note})" if mapped.note else ""
            yield (
                f"ambiguous: {label} is taken for {_class(mapped.number)}, "
                f"it could be {_class(mapped.alternative)}{note}; --map decides otherwise"
            )
    if prepared.absent:
        yield (
            f"absent of the six classes: {', '.join(prepared.absent)}; "
            "a six-class score here is over the others"
        )


def _part_lines(prepared: Prepared) -> Iterator[str]:
    splits = Counter(clip.split for clip in prepared.clips)
    order = ["train", "dev", "test"]
    names = sorted(
        splits,
        key=lambda name: (name not in order, order.index(name)) if name in order else (True, 0),
    )
    folds = len({clip.fold for clip in prepared.clips})
    parts = ", ".join(f"{name or '(none)'} {splits[name]:,}" for name in names)
    yield f"parts: {prepared.corpus.division.words}"
    yield f"  split: {parts}; folds: {folds}"
    for column in ("split", "fold"):
        if shared := prepared.shared(column):
            names = shared[:3] + (["..."] if len(shared) > 3 else [])
            published = ", as given" if column in prepared.corpus.division.shared else ""
            yield (
                f"  note: {len(shared):,} speakers stand in more than one {column} "
                f"({', '.join(names)}){published}: scores on these parts are not of unseen speakers"
            )


def _left_out_lines(prepared: Prepared) -> Iterator[str]:
    reading = prepared.reading
    for reason, count in Counter(reason for _, reason in reading.left_out).items():
        first = next(name for name, why in reading.left_out if why == reason)
        yield f"left out, as documented: {first}{_more(count)}: {reason}"
    if reading.repeated:
        first, count = reading.repeated[0], len(reading.repeated)
        yield f"kept once: {first}{_more(count)}: the same clip in another file"
    if reading.beside:
        yield f"passed over: {reading.beside:,} recordings of the release that are no clips"
    for label, count in prepared.chosen_away.items():
        yield f"not asked for: {label} ({count:,} clips)"
    for kind, count in Counter(flaw.kind for flaw in prepared.flaws).items():
        yield f"left out (--lenient): {kind}: {count:,}"


def _note_lines(prepared: Prepared) -> Iterator[str]:
    facts = facts_of(prepared.corpus.name)
    there = len(prepared.clips) + prepared.chosen_away.total() + len(prepared.reading.left_out)
    if facts and facts.clips and there not in facts.clips:
        whole = " or ".join(f"{size:,}" for size in facts.clips)
        missing = "is the archive unpacked whole?" if there < min(facts.clips) else "is it doubled?"
        yield f"note: {there:,} clips are there, the release has {whole}: {missing}"
    videos = set(prepared.reading.tree.videos) & {clip.file for clip in prepared.clips}
    if videos:
        yield (
            f"note: {len(videos):,} files are videos; mp4, mov, mkv and webm are read where ffmpeg "
            "is installed, of others extract the sound to files of the same name beside them "
            "(ffmpeg -i A.avi -ac 1 -ar 16000 A.wav) and prepare again"
        )


def _class_words(mapped: Mapped | None) -> str:
    if mapped is None:
        return "no class (the six-class map does not know the label)"
    if mapped.number is None:
        return f"no class ({mapped.source})"
    return f"{_class(mapped.number)} ({mapped.source})"


def _class(number: int | None) -> str:
    return "no class" if number is None else f"{number} {CLASSES[number]}"


def _more(count: int) -> str:
    return f" and {count - 1:,} more" if count > 1 else ""
