"""A corpus' folder to clips, and to everything in it that cannot become one."""

from __future__ import annotations

import filecmp
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from ..errors import CorpusError
from .clips import Clip
from .corpus import Corpus, NoClip, Side, fits
from .walking import Tree, damage, walk

# One clip, several files: an uncompressed one is taken before others, any audio before video.
PREFERRED = (".wav", ".wave", ".flac")
ABOVE = 4  # folders above ROOT that are tried when nothing in it fits
ARCHIVES = r".*\.(?:zip|rar|7z|tar|tgz|gz|bz2|xz)"


@dataclass(frozen=True, kw_only=True)
class Flaw:
    """One file or clip that cannot go into a manifest."""

    kind: str
    name: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a folder holds.

    ``left_out`` pairs documented exceptions with their reasons, ``repeated`` are further files
    of clips that are there already, ``beside`` counts audio of the release that is no clip.
    """

    tree: Tree
    clips: tuple[Clip, ...]
    flaws: tuple[Flaw, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    repeated: tuple[str, ...] = ()
    beside: int = 0


@dataclass
class _Found:
    """What was found so far, with several clips of one id where several files hold it."""

    clips: list[Clip] = field(default_factory=list)
    flaws: list[Flaw] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # ids


def read_corpus(corpus: Corpus, root: Path, *, keep_exceptions: bool = False) -> Reading:
    """Match every audio file below ``root`` against the corpus' rule.

    Parameters
    ----------
    keep_exceptions
        Take also the clips that are left out by default.

    Returns
    -------
    Clips in the order of their files and starts, and all flaws. It raises only where the
    folder is plainly the wrong one.
    """
    tree = walk(root)
    media = (*tree.audio, *tree.videos) if corpus.videos else tree.audio
    beside = {name for name in media if fits(corpus.beside, name)}
    media = tuple(name for name in media if name not in beside)
    if not any(fits(corpus.rule, name) for name in media):
        raise _nothing_fits(corpus, tree, media)
    side = corpus.load(tree)
    found = _Found()
    for name in media:
        _describe(corpus, tree, name, side, found)
    expected = set(corpus.expected(side)) - {clip.id for clip in found.clips} - found.damaged
    for name in sorted(expected):
        if not _exception(corpus, name):
            found.flaws.append(Flaw(kind="labelled, but without a file", name=name))
    clips = []
    for clip in _one_file_each(corpus, tree, found):
        reason = _exception(corpus, clip.id)
        if reason and not keep_exceptions:
            found.left_out.append((clip.id, reason))
        else:
            clips.append(clip)
    return Reading(
        tree=tree,
        clips=tuple(sorted(clips, key=lambda clip: (clip.file, clip.start or 0.0, clip.id))),
        flaws=tuple(found.flaws),
        left_out=tuple(found.left_out),
        repeated=tuple(dict.fromkeys(found.repeated)),
        beside=len(beside),
    )


def _exception(corpus: Corpus, name: str) -> str:
    """Why a clip is left out by default; empty for most."""
    fitting = (why for rule, why in corpus.exceptions.items() if re.fullmatch(rule, name))
    return next(fitting, "")


def _describe(corpus: Corpus, tree: Tree, name: str, side: Side, found: _Found) -> None:
    """Sort one file into what was found."""
    match = fits(corpus.rule, name)
    if match is None:
        found.flaws.append(Flaw(kind="fits no rule", name=name))
        return
    try:
        clips = [
            replace(clip, file=name, corpus=clip.corpus or corpus.name)
            for clip in corpus.describe(match, side)
        ]
    except NoClip as none:
        if none.known:
            found.left_out.append((name, none.reason))
        else:
            found.flaws.append(Flaw(kind="no label", name=name, reason=none.reason))
        return
    wrong = damage(tree.root / name)
    if wrong and not all(_exception(corpus, clip.id) for clip in clips):
        found.flaws.append(Flaw(kind="damaged", name=name, reason=wrong))
        found.damaged.update(clip.id for clip in clips)
    else:
        found.clips += clips


def _one_file_each(corpus: Corpus, tree: Tree, found: _Found) -> list[Clip]:
    """One clip of each id. Equal files count once; of files that differ, none is taken."""
    by_id: dict[str, list[Clip]] = defaultdict(list)
    for clip in found.clips:
        by_id[clip.id].append(clip)
    chosen = []
    for name, clips in by_id.items():
        first, *others = sorted(clips, key=lambda clip: _rank(corpus, clip.file))
        differing = [other for other in others if _conflict(corpus, tree, first, other)]
        if differing:
            reason = f"{first.file} and {differing[0].file} differ"
            found.flaws.append(Flaw(kind="two recordings", name=name, reason=reason))
        else:
            chosen.append(first)
            found.repeated += [other.file for other in others]
    return chosen


def _rank(corpus: Corpus, file: str) -> tuple[bool, int, int, str]:
    path = PurePosixPath(file)
    suffix = path.suffix.lower()
    order = PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED)
    return fits(corpus.spare, file) is not None, order, len(path.parts), file


def _conflict(corpus: Corpus, tree: Tree, first: Clip, other: Clip) -> bool:
    """Whether two files of one id differ; of conversions and spares that is nothing odd."""
    suffixes = {PurePosixPath(clip.file).suffix.lower() for clip in (first, other)}
    if len(suffixes) == 2 or fits(corpus.spare, other.file):
        return False
    one, two = (tree.root / clip.file for clip in (first, other))
    return not filecmp.cmp(one, two, shallow=False)


def _nothing_fits(corpus: Corpus, tree: Tree, media: Sequence[str]) -> CorpusError:
    """Make the error for a folder in which no file fits, with the likeliest remedy."""
    remedy = ""
    absolute = tree.root.resolve()
    for folder in absolute.parents[:ABOVE]:
        inside = absolute.relative_to(folder).as_posix()
        if any(fits(corpus.rule, f"{inside}/{name}") for name in media):
            remedy = f"{folder} is the folder to give: this one is a part of the corpus"
            break
    archives = tree.find(ARCHIVES)
    if not media and archives:
        remedy = f"Unpack {archives[0]} first"
    elif not media and tree.videos:
        remedy = f"{tree.videos[0]} is a video: extract its sound first"
    examples = f" (it holds {', '.join(media[:3])})" if media else " (it holds no audio)"
    return CorpusError(
        f"no file below {tree.root} is one of {corpus.name}{examples}",
        expected=corpus.layout,
        remedy=remedy,
    )
