"""Several stores as one: who is who, one corpus left out at a time, and the mean over corpora."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from emotional_store import EMOTIONS, write_emotional_store

from exhubert_features import FeatureStore, LabelOptions, SplitOptions, evaluate, probe, train
from exhubert_features.cli import main
from exhubert_features.errors import FingerprintMismatch, LabelError, UsageError
from exhubert_features.evaluation import Labels
from exhubert_features.evaluation.across import beyond, mean_over
from exhubert_features.evaluation.metrics import CLASSIFICATION
from exhubert_features.evaluation.outcome import Outcome
from exhubert_features.evaluation.splits import Fold, Protocol, make_protocol
from exhubert_features.heads import load_head
from exhubert_features.spec import ExtractionSpec
from exhubert_features.store import UnknownId, merge, open_stores, pack

NAMES = ("alpha", "beta", "gamma")
LEFT_OUT = SplitOptions(scheme="leave-one-corpus-out")
SMALL = {"speakers": 4, "clips": 6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three corpora whose speakers, and in two of them clips, have the same names."""
    path = tmp_path_factory.mktemp("several")
    for name, seed in zip(NAMES, (1, 1, 2), strict=True):
        write_emotional_store(path / name, seed=seed, audio=name, **SMALL)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def paths(folder: Path) -> list[Path]:
    return [folder / name for name in NAMES]


def labels_of(stores: list[Path], **options: object) -> Labels:
    return Labels.from_store(open_stores(stores), target="emotion", **options)  # type: ignore[arg-type]


def test_one_store_is_itself(paths: list[Path]) -> None:
    store = open_stores(paths[0])
    assert type(store) is FeatureStore and open_stores(store) is store
    assert type(open_stores(paths[:1])) is FeatureStore


def test_rows_are_those_of_each_in_turn(paths: list[Path]) -> None:
    store, parts = open_stores(paths), [FeatureStore(path) for path in paths]
    assert len(store) == 72 and len(set(store.ids)) == 72
    assert store.ids[0] == "alpha/1-0-00" and store.ids[24] == "beta/1-0-00"
    assert store.ids[-1] == "2-3-05"  # stands in one store only
    assert store.column("clip_id") == store.ids
    whole = np.concatenate([part.matrix(layer=3) for part in parts])
    np.testing.assert_array_equal(store.matrix(layer=3), whole)
    assert store.logits().shape == (72, 2)
    for place in (0, 30, 71):
        name = store.ids[place]
        assert name in store and store.row(name) == place and store[name].id == name
        np.testing.assert_array_equal(store[name].pooled[3, 0], whole[place])
        np.testing.assert_array_equal(store.vector(name, layer=3), whole[place])
    assert [json.loads(meta)["corpus"] for meta in store.column("meta")][::24] == list(NAMES)
    assert len(store.failures) == 3
    with pytest.raises(UnknownId, match="1-0-00"):
        store["1-0-00"]


def test_a_corpus_is_named_by_hand_by_its_rows_or_by_its_folder(tmp_path: Path) -> None:
    first = write_emotional_store(tmp_path / "a/features", seed=1, **SMALL)  # type: ignore[arg-type]
    write_emotional_store(tmp_path / "b/features", seed=2, **SMALL)  # type: ignore[arg-type]
    write_emotional_store(tmp_path / "c/features", seed=3, corpus="emodb", **SMALL)  # type: ignore[arg-type]
    a, b, c = (tmp_path / name / "features" for name in "abc")

    def corpora(stores: object) -> list[str]:
        metas = open_stores(stores).column("meta")  # type: ignore[arg-type]
        return list(dict.fromkeys(json.loads(meta)["corpus"] for meta in metas))

    with pytest.raises(UsageError, match=r"2 stores are called 'features'.*NAME=STORE"):
        open_stores([a, b])
    assert corpora([a, c]) == ["features", "emodb"]
    assert corpora([f"one={a}", f"two={b}", c]) == ["one", "two", "emodb"]
    assert corpora({"one": first, "two": b, "three": c}) == ["one", "two", "three"]


def test_stores_of_one_corpus_share_speakers_and_no_clips(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_emotional_store(tmp_path / str(seed), seed=seed, **SMALL)  # type: ignore[arg-type]
    labels = labels_of([f"emodb={tmp_path / '1'}", f"emodb={tmp_path / '2'}"])  # type: ignore[list-item]
    assert sorted(set(labels.groups.tolist())) == [f"emodb/s{number}" for number in range(4)]
    assert not labels.warnings
    with pytest.raises(UsageError, match=r"24 ids stand in two stores of the corpus emodb, first"):
        open_stores([f"emodb={tmp_path / '1'}"] * 2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preprocess": "masked"}, "spec.preprocess is 'masked', not 'card'"),
        ({"layers": (0, 3)}, r"spec.layers is \[0, 3\], not \[0, 1, 2, 3, 4\]"),
        ({"pools": ("max",)}, r"spec.pools is \['max'\], not \['mean'\]"),
    ],
)
def test_stores_of_two_kinds_are_refused(
    changes: dict[str, object], words: str, paths: list[Path], tmp_path: Path
) -> None:
    spec = ExtractionSpec(**changes)  # type: ignore[arg-type]
    write_emotional_store(tmp_path / "other", spec=spec, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(FingerprintMismatch, match=f"other and .*alpha are not of one.*{words}"):
        train([paths[0], tmp_path / "other"], target="emotion")


def test_a_store_without_clips_is_refused(paths: list[Path], tmp_path: Path) -> None:
    write_emotional_store(tmp_path / "empty", speakers=0)
    with pytest.raises(UsageError, match="empty holds no clips"):
        open_stores([*paths, tmp_path / "empty"])


def test_ids_that_look_qualified_are_not_taken_for_others(tmp_path: Path) -> None:
    first, _ = (write_emotional_store(tmp_path / n, seed=1, audio=n, **SMALL) for n in ("a", "b"))  # type: ignore[arg-type]
    odd = replace(first[first.ids[0]], id="b/1-0-00", clip_id="b/1-0-00", audio_sha256="f" * 64)
    FeatureStore.write(tmp_path / "c", [odd], fingerprint=first.fingerprint)
    with pytest.raises(UsageError, match="an id of one store is how another's is written"):
        open_stores([tmp_path / name for name in "abc"])


def test_speakers_of_two_corpora_are_different_people(paths: list[Path]) -> None:
    labels = labels_of(paths)
    assert len(set(labels.groups.tolist())) == 12 and "beta/s0" in labels.groups
    (note,) = labels.warnings
    assert "4 names of a speaker stand in several corpora (s0, s1, s2, s3)" in note
    assert labels.columns["corpus"].tolist() == list(np.repeat(NAMES, 24))


def test_lookalikes_are_united_inside_a_corpus_only(paths: list[Path]) -> None:
    store = open_stores(paths[:2])
    odd = {"alpha/1-0-00": "S0"}
    rows = [
        {"id": name, "emotion": store[name].meta["emotion"],
         "speaker": odd.get(name, store[name].meta["speaker"])}
        for name in store.ids
    ]  # fmt: skip
    labels = Labels.from_store(store, target="emotion", labels=rows)
    assert len(set(labels.groups.tolist())) == 8
    assert any(note.startswith("alpha: Taken for one speaker") for note in labels.warnings)


def test_the_same_audio_in_two_corpora_ties_their_speakers(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_emotional_store(tmp_path / name, seed=1, **SMALL)  # type: ignore[arg-type]
    labels = labels_of([tmp_path / "a", tmp_path / "b"], split="corpus")
    assert len(set(labels.groups.tolist())) == 4
    with pytest.raises(LabelError, match="4 groups stand on both sides of corpus a"):
        make_protocol(labels, LEFT_OUT)


@pytest.mark.parametrize("qualified", [True, False])
def test_a_table_names_clips_with_their_corpus(qualified: bool, paths: list[Path]) -> None:
    store = open_stores(paths)
    rows = []
    for index, name in enumerate(store.ids):
        corpus, own = NAMES[index // 24], name.rpartition("/")[2]
        row = {"emotion": EMOTIONS[index % 2], "speaker": f"{index % 24 // 6}"}
        rows.append(row | ({"id": name} if qualified else {"id": own, "corpus": corpus}))
    labels = Labels.from_store(store, target="emotion", labels=rows)
    assert labels.values.tolist() == [index % 2 for index in range(72)]
    assert labels.columns["corpus"].tolist() == list(np.repeat(NAMES, 24))


def test_each_corpus_is_left_out_once(paths: list[Path]) -> None:
    labels = labels_of(paths, split="corpus")
    protocol = make_protocol(labels, LEFT_OUT)
    corpus = labels.columns["corpus"]
    assert [fold.name for fold in protocol.folds] == [f"corpus {name}" for name in NAMES]
    for fold, name in zip(protocol.folds, NAMES, strict=True):
        assert set(corpus[fold.test]) == {name} and name not in corpus[fold.train]
        assert len(fold.inner) == 2  # chosen by leaving out one of the other two
        for inner in fold.inner:
            assert len(set(corpus[inner.held])) == 1 and name not in corpus[inner.held]
    assert "Each of the 3 corpora was left out once" in protocol.words


def test_of_two_corpora_one_trains_and_chooses_by_its_speakers(paths: list[Path]) -> None:
    labels = labels_of(paths[:2], split="corpus")
    for fold in make_protocol(labels, LEFT_OUT).folds:
        assert len(fold.inner) == 4
        for inner in fold.inner:
            assert not set(labels.groups[inner.train]) & set(labels.groups[inner.held])


def test_one_corpus_cannot_be_left_out(paths: list[Path], tmp_path: Path) -> None:
    write_emotional_store(tmp_path / "one", corpus="emodb", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(LabelError, match=r"all clips are of one corpus, 'emodb'.*several stores"):
        probe(tmp_path / "one", target="emotion", splitting=LEFT_OUT)
    with pytest.raises(LabelError, match="there is no column 'corpus'"):
        probe(paths[0], target="emotion", splitting=LEFT_OUT)


def test_several_stores_score_as_the_merged_one(tmp_path: Path) -> None:
    for seed, name in enumerate(NAMES):
        write_emotional_store(tmp_path / name, seed=seed, corpus=name, **SMALL)  # type: ignore[arg-type]
    stores = [tmp_path / name for name in NAMES]
    merge(stores, tmp_path / "merged")
    found = [
        train(one, target="emotion", splitting=LEFT_OUT, layers=[2]).evaluation
        for one in (stores, tmp_path / "merged")
    ]
    assert found[0].main == found[1].main and found[0].parts == found[1].parts
    assert [part.name for part in found[0].parts if part.kind == "corpus"] == list(NAMES)


def test_a_corpus_that_means_something_else_shows(paths: list[Path]) -> None:
    """Known truth: in gamma every emotion is called by another's name."""
    store = open_stores(paths)
    moved = dict(zip(EMOTIONS, (*EMOTIONS[1:], EMOTIONS[0]), strict=True))
    rows = [
        {"id": name, "emotion": row.meta["emotion"] if "/" in name else moved[row.meta["emotion"]],
         "speaker": row.meta["speaker"]}
        for name in store.ids
        for row in [store[name]]
    ]  # fmt: skip
    found = probe(paths, target="emotion", labels=rows, layers=[3], splitting=LEFT_OUT)
    scores = {part.name: part.score for part in found.parts}
    assert scores["gamma"].value < 0.1 < 0.4 < scores["alpha"].value
    mean, another = scores["other speakers of these"], scores["another corpus like these"]
    values = [scores[name].value for name in NAMES]
    assert mean.value == another.value == pytest.approx(np.mean(values))
    assert another.low < mean.low < mean.high < another.high  # corpora differ more than speakers


@pytest.mark.slow
def test_train_then_evaluate_on_several(paths: list[Path], tmp_path: Path) -> None:
    trained = train(paths, target="emotion", splitting=LEFT_OUT)
    trained.save(tmp_path / "head")
    write_emotional_store(tmp_path / "x", seed=7, audio="x", **SMALL)  # type: ignore[arg-type]
    write_emotional_store(tmp_path / "y", seed=7, audio="y", **SMALL)  # type: ignore[arg-type]
    found = evaluate(tmp_path / "head", [tmp_path / "x", tmp_path / "y"])
    assert found.main.value > 0.8 and len(found.tested) == 48
    assert [part.name for part in found.parts] == ["x", "y", "other speakers of these"]
    assert not any("were among the head's training clips" in note for note in found.warnings)
    again = evaluate(tmp_path / "head", paths[:2])
    assert any("48 of 48 clips were among" in note for note in again.warnings)
    found.report(tmp_path / "report")
    page = (tmp_path / "report/report.html").read_text()
    assert "other speakers of these" in page


@pytest.mark.slow
def test_as_typed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stores = [str(folder / "alpha"), f"second={folder / 'beta'}", str(folder / "gamma")]
    command = [*stores, "--target", "emotion", "--split", "leave-one-corpus-out", "-o"]
    assert main(["train", *command, str(tmp_path / "head"), "--layers", "3"]) == 0
    printed = capsys.readouterr().out
    for words in ("corpus alpha: UAR", "corpus second: UAR", "mean of 3 corpora, for another"):
        assert words in printed
    assert load_head(tmp_path / "head").config.classes == EMOTIONS
    assert main(["evaluate", str(tmp_path / "head"), *stores, "-o", str(tmp_path / "on")]) == 0
    assert main(["probe", *command, str(tmp_path / "probe"), "--repeats", "2"]) == 2
    assert "can be dealt in one way only" in capsys.readouterr().err


def test_a_corpus_of_one_class(paths: list[Path]) -> None:
    """It cannot train alone, and is tested on what it has."""
    only = {"happy": "", "sad": ""}
    store = open_stores(paths[:2])
    rows = [
        {"id": name, "emotion": only.get(emotion, emotion) if "alpha" in name else emotion,
         "speaker": store[name].meta["speaker"]}
        for name in store.ids
        for emotion in [store[name].meta["emotion"]]
    ]  # fmt: skip
    found = probe(
        paths[:2],
        target="emotion",
        labels=rows,
        layers=[3],
        joining=LabelOptions(drop_unlabelled=True),
        splitting=LEFT_OUT,
    )
    assert [fold.name for fold in found.protocol.folds] == ["corpus alpha"]
    assert any("Not tested" in note and "corpus beta" in note for note in found.warnings)
    assert set(found.tested.values.tolist()) == {0}


def told(stores: list[Path], **changes: dict[str, str]) -> list[dict[str, str]]:
    """Rows of labels; ``changes`` hold new values by corpus, as ``alpha={"arousal": ""}``."""
    store = open_stores(stores)
    metas = [json.loads(meta) for meta in store.column("meta")]
    return [
        {"id": name, "valence": meta["arousal"], **meta, **changes.get(meta["corpus"], {})}
        for name, meta in zip(store.ids, metas, strict=True)
    ]


@pytest.mark.parametrize("nothing", ["", "0.5"])
def test_a_corpus_without_different_numbers_has_no_score(
    nothing: str, paths: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = told(paths, beta={"valence": nothing})
    table = tmp_path / "labels.csv"
    columns = ("id", "speaker", "arousal", "valence")
    lines = [",".join(row[name] for name in columns) for row in rows]
    table.write_text("\n".join([",".join(columns), *lines]))
    command = ["probe", *map(str, paths), "--labels", str(table), "--target", "arousal,valence"]
    command += ["--split", "leave-one-corpus-out", "--layers", "3", "-o", str(tmp_path / "out")]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "corpus beta: Mean CCC not defined, for the numbers do not vary or are not" in printed
    assert "mean of 2 corpora, for other speakers of these: Mean CCC" in printed
    parts = json.loads((tmp_path / "out/report.json").read_text())["parts"]
    assert [part["score"]["value"] is None for part in parts] == [False, True, False, False]


def test_a_corpus_without_labels_is_left_out_and_said(paths: list[Path]) -> None:
    found = probe(
        paths, target="emotion", labels=told(paths, beta={"emotion": ""}), layers=[3],
        joining=LabelOptions(drop_unlabelled=True), splitting=LEFT_OUT,
    )  # fmt: skip
    assert [fold.name for fold in found.protocol.folds] == ["corpus alpha", "corpus gamma"]
    assert any("Dropped: no label, group or split for 24 clips" in note for note in found.warnings)


def test_a_corpus_of_one_clip(paths: list[Path], tmp_path: Path) -> None:
    write_emotional_store(tmp_path / "one", seed=5, speakers=1, clips=1)
    found = probe([*paths, tmp_path / "one"], target="emotion", layers=[3], splitting=LEFT_OUT)
    part = next(part for part in found.parts if part.name == "one")
    assert part.clips == 1 and (part.score.low, part.score.high) != (part.score.value,) * 2


def test_corpora_whose_names_look_alike_are_one(paths: list[Path]) -> None:
    stores = [f"EmoDB={paths[0]}", f"emodb={paths[2]}", str(paths[1])]
    labels = labels_of(stores, split="corpus")  # type: ignore[arg-type]
    assert len(make_protocol(labels, LEFT_OUT).folds) == 2
    assert len(set(labels.groups.tolist())) == 8
    assert any(note.startswith("Taken for one corpus each") for note in labels.warnings)


def test_a_packed_store_is_one_of_several(paths: list[Path], tmp_path: Path) -> None:
    pack(paths[2], tmp_path / "gamma.h5")
    packed = open_stores([*paths[:2], tmp_path / "gamma.h5"])
    assert packed.column("meta") == open_stores(paths).column("meta")


def test_speakers_that_a_head_knows_by_their_corpus(paths: list[Path], tmp_path: Path) -> None:
    head = train(paths[:2], target="emotion", layers=[3], splitting=LEFT_OUT).head
    write_emotional_store(tmp_path / "new", seed=9, audio="new", **SMALL)  # type: ignore[arg-type]
    words = "groups (speaker) have the names of groups"

    def known(stores: object) -> bool:
        return any(words in note for note in evaluate(head, stores).warnings)  # type: ignore[arg-type]

    assert known(tmp_path / "new")  # s0 to s3 of nobody says where: they may be the same people
    assert known({"alpha": tmp_path / "new"})
    assert not known({"other": tmp_path / "new"})
    alone = train(paths[0], target="emotion", layers=[3]).head
    assert any(words in note for note in evaluate(alone, {"x": tmp_path / "new"}).warnings)


def outcome_of(groups: int, rate: float, random: np.random.Generator, spread: float) -> Outcome:
    """Two classes of 10 clips for each speaker; hit by speakers' own rates about ``rate``."""
    size, count = 20, groups * 20
    own = np.clip(random.normal(rate, spread, groups), 0, 1).repeat(size)
    truth = np.tile([0, 1], count // 2)
    guess = np.where(random.random(count) < own, truth, 1 - truth)
    everyone = np.arange(count)
    labels = Labels(
        target="x", task="classification", classes=("a", "b"), rows=everyone,
        ids=everyone.astype(str), clips=everyone.astype(str), values=truth,
        groups=everyone // size, group="speaker",
    )  # fmt: skip
    whole = Fold(name="all", train=everyone[:0], test=everyone, inner=())
    return Outcome(
        labels=labels,
        protocol=Protocol(folds=(whole,), words=""),
        outputs=np.eye(2)[guess],
    )


def coverage(groups: tuple[int, ...], rates: tuple[float, ...], repeats: int) -> float:
    """Share of intervals that hold the mean of rates, of other speakers of the same corpora."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(repeats):
        parts = [outcome_of(g, r, random, 0.1) for g, r in zip(groups, rates, strict=True)]
        found = mean_over(parts)
        assert found.value == pytest.approx(np.mean([part.main.value for part in parts]))
        held += found.low <= np.mean(rates) <= found.high
    return held / repeats


@pytest.mark.parametrize("groups", [(4, 4, 4), (4, 6, 24), (5, 10)])
def test_the_mean_over_corpora_keeps_its_word(groups: tuple[int, ...]) -> None:
    assert 0.92 <= coverage(groups, (0.55, 0.7, 0.8)[: len(groups)], 400) <= 0.985


def test_the_mean_is_not_that_of_all_clips() -> None:
    """A large corpus counts as much as a small one."""
    random = np.random.default_rng(1)
    parts = [outcome_of(40, 0.95, random, 0.0), outcome_of(4, 0.5, random, 0.0)]
    sums = sum(CLASSIFICATION["uar"](part_confusion(part)) for part in parts)
    assert mean_over(parts).value == pytest.approx(sums / 2, abs=1e-9)
    assert mean_over(parts).value < 0.8


def part_confusion(part: Outcome) -> np.ndarray:
    cells = part.tested.values * 2 + part.prediction
    return np.bincount(cells, minlength=4).reshape(2, 2)


def test_the_interval_for_another_corpus_keeps_its_word() -> None:
    random = np.random.default_rng(0)
    for count in (3, 5, 8):
        held = 0
        for _ in range(2000):
            found = beyond(random.normal(0.6, 0.05, count).tolist(), 0.0)
            assert found is not None
            held += found.low <= 0.6 <= found.high
        assert 0.935 <= held / 2000 <= 0.965
    assert beyond([0.5, 0.7], 0.0) is None
