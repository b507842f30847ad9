"""inspect, verify, pack, merge, export and bench as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from store_fakes import FakeExtraction, make_clip, make_extraction, make_fingerprint

from exhubert_features import FeatureStore
from exhubert_features.cli import main
from exhubert_features.records import ClipFailure
from exhubert_features.spec import CLASSES, ExtractionSpec

SPEC = ExtractionSpec(layers=(0, 1, 2, 4), pools=("mean", "std"))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Five clips of which one fails, one file that could not be planned, an odd id."""
    clips = [make_clip(f"clip_{n}", meta={"speaker": f"s{n}"}) for n in range(4)]
    extraction = FakeExtraction(
        [*clips, make_clip("\udcff")],
        fingerprint=make_fingerprint(SPEC),
        failing={"clip_1": "too loud"},
        rejected=[ClipFailure(id="bad", file="bad.wav", kind="unreadable", reason="no audio")],
    )
    FeatureStore.write(tmp_path / "features", extraction)
    return tmp_path / "features"


def test_inspect_says_what_is_in_a_store(store: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["inspect", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "4 rows of 4 clips" in shown
    assert "layers    0-2,4 of 5, float16" in shown
    assert "pooled    mean, std" in shown
    assert "columns   speaker" in shown
    assert "failed: 2" in shown
    assert "'clip_1' (broken, 1 x): too loud" in shown
    assert main(["inspect", str(store), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["failures_by_kind"] == {"broken": 1, "unreadable": 1}
    assert data["fingerprint"]["spec"]["layers"] == [0, 1, 2, 4]
    assert (data["rows"], data["pending"]) == (4, [])
    assert data["hours"] == pytest.approx(4 * 3 / 3600)


def test_a_reader_that_leaves_early_is_no_error(store: Path) -> None:
    """As in ``exhubert inspect STORE | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "exhubert_features", "inspect", str(store)]
    with os.fdopen(writing, "w") as closed:
        found = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (found.returncode, found.stderr) == (141, b"")


def test_inspect_names_what_an_interrupted_run_left(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        FeatureStore.write(tmp_path / "store", make_extraction(30, interrupt_at=2))
    assert main(["inspect", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert "still to extract: 28" in shown
    assert "'clip_002'" in shown
    assert "and 8 more" in shown


def test_verify_ends_with_4_until_the_damage_is_repaired(
    store: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["verify", str(store), "--deep"]) == 0
    assert "all is well; 4 rows in 1 sound shard\n" in capsys.readouterr().out
    shard = store / "shards/000000.h5"
    shard.write_bytes(shard.read_bytes()[:-10])
    assert main(["verify", str(store)]) == 4
    shown = capsys.readouterr().out
    assert "000000.h5 is cut or grown" in shown
    assert "--repair" in shown
    assert main(["inspect", str(store)]) == 4
    assert "verify --repair" in capsys.readouterr().err
    assert main(["verify", str(store), "--repair"]) == 4
    shown = capsys.readouterr().out
    assert "will make 4 clips: 'clip_0', 'clip_2', 'clip_3', '\\udcff'" in shown
    assert main(["verify", str(store)]) == 0
    assert "will make 4 clips" in capsys.readouterr().out


def test_verify_finds_a_spoiled_packed_file(store: Path, capsys: pytest.CaptureFixture) -> None:
    packed = store.with_name("all.h5")
    assert main(["pack", str(store), str(packed)]) == 0
    assert f"{packed}: 4 rows, {packed.stat().st_size:,} bytes" in capsys.readouterr().out
    assert main(["verify", str(packed)]) == 0
    content = bytearray(packed.read_bytes())
    content[-1] ^= 1
    packed.write_bytes(content)
    assert main(["verify", str(packed)]) == 4
    assert main(["verify", str(packed), "--repair"]) == 1
    assert "Pack it again" in capsys.readouterr().err


def test_pack_refuses_to_overwrite(store: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["pack", str(store), str(store / "store.json")]) == 1
    assert "exists" in capsys.readouterr().err


def test_merge_reports_what_several_stores_held(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = FakeExtraction(
        [make_clip("clip_2"), make_clip("new")], fingerprint=make_fingerprint(SPEC)
    )
    FeatureStore.write(tmp_path / "other", other)
    both = tmp_path / "both"
    assert main(["merge", str(store), str(tmp_path / "other"), "-o", str(both)]) == 0
    shown = capsys.readouterr().out
    assert f"{both}: 5 rows" in shown
    assert "kept once: 1 clips ('clip_2')" in shown
    assert "new" in FeatureStore(both)


@pytest.mark.parametrize("form", ["npz", "csv", "parquet"])
def test_exported_numbers_are_the_stored_ones(store: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    output = store.with_name(f"features.{form}")
    command = ["export", str(store), "--to", form, "--layer", "2", "--pool", "std"]
    assert main(command) == 0
    opened = FeatureStore(store)
    matrix = opened.matrix(layer=2, pool="std")
    if form == "npz":
        with np.load(output) as archive:
            np.testing.assert_array_equal(archive["features"], matrix)
            np.testing.assert_array_equal(archive["logits"], opened.logits())
            assert archive["ids"].tolist() == opened.ids
            assert archive["classes"].tolist() == list(CLASSES)
    else:
        table = pd.read_csv(output) if form == "csv" else pd.read_parquet(output)
        assert table["id"].tolist() == ["clip_0", "clip_2", "clip_3", "\\udcff"]
        assert table["speaker"].tolist()[:3] == ["s0", "s2", "s3"]
        assert table["end"].tolist() == [3.0] * 4
        features = table[[f"feature_{n}" for n in range(8)]].to_numpy()
        np.testing.assert_allclose(features, matrix.astype("f4"), rtol=1e-6)
        logits = table[[f"logit_{label}" for label in CLASSES]].to_numpy()
        np.testing.assert_allclose(logits, opened.logits(), rtol=1e-6)
    before = output.read_bytes()
    assert main(command) == 2, "an existing file is not overwritten"
    assert output.read_bytes() == before


def test_several_layers_are_exported_side_by_side(store: Path) -> None:
    opened = FeatureStore(store)
    npz, csv = store.with_name("features.npz"), store.with_name("features.csv")
    assert main(["export", str(store), "--to", "npz", "--layers", "1,4"]) == 0
    with np.load(npz) as archive:
        assert archive["features"].shape == (4, 2, 8)
        assert archive["layers"].tolist() == [1, 4]
        np.testing.assert_array_equal(archive["features"][:, 1], opened.matrix(layer=4))
    assert main(["export", str(store), "--to", "csv", "--layers", "all", "--pool", "std"]) == 0
    table = pd.read_csv(csv)
    for layer in (0, 1, 2, 4):
        features = table[[f"layer{layer}_{n}" for n in range(8)]].to_numpy()
        expected = opened.matrix(layer=layer, pool="std")
        np.testing.assert_allclose(features, expected.astype("f4"), rtol=1e-6)


def test_an_export_replaces_a_file_only_when_forced(store: Path) -> None:
    output = store.with_name("features.csv")
    output.write_text("mine")
    command = ["export", str(store), "--to", "csv"]
    assert main(command) == 2
    assert output.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert len(pd.read_csv(output)) == 4


def test_an_exported_csv_starts_no_formula_unless_asked(tmp_path: Path) -> None:
    clips = [make_clip("=cmd()", meta={"@x": "+1", "y": "-a"}), make_clip("plain", meta={"y": "b"})]
    FeatureStore.write(tmp_path / "store", FakeExtraction(clips))
    output = tmp_path / "store.csv"
    assert main(["export", str(tmp_path / "store"), "--to", "csv"]) == 0
    table = pd.read_csv(output)
    assert table["id"].tolist() == ["'=cmd()", "plain"]
    assert table["'@x"].tolist()[0] == "'+1"
    assert table["y"].tolist() == ["'-a", "b"]
    assert table["feature_0"].min() < 0, "numbers stay numbers"
    assert main(["export", str(tmp_path / "store"), "--to", "csv", "--formulas", "--force"]) == 0
    assert pd.read_csv(output)["id"].tolist() == ["=cmd()", "plain"]


def test_what_a_terminal_would_obey_is_shown_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    evil = "\x1b[2J\u202e\x9b"
    clips = [make_clip("ok", meta={f"col{evil}": "x"}), make_clip(f"bad{evil}")]
    extraction = FakeExtraction(
        clips,
        fingerprint=make_fingerprint(classes=(f"joy{evil}", "b", "c", "d", "e", "f")),
        failing={f"bad{evil}": f"because{evil}"},
    )
    extraction.provenance = {"source": f"here{evil}"}  # type: ignore[attr-defined]
    FeatureStore.write(tmp_path / "store", extraction)
    assert main(["inspect", str(tmp_path / "store")]) == 0
    shown = capsys.readouterr().out
    assert not set(evil) - {"[", "2", "J"} & set(shown)
    for word in ("col", "joy", "because", "here"):
        assert f"{word}\\x1b[2J\\u202e\\x9b" in shown


def test_export_takes_the_last_layer_unless_told(store: Path, tmp_path: Path) -> None:
    output = tmp_path / "last.npz"
    assert main(["export", str(store), "--to", "npz", "-o", str(output)]) == 0
    with np.load(output) as archive:
        np.testing.assert_array_equal(archive["features"], FeatureStore(store).matrix(layer=4))
    assert main(["export", str(store), "--to", "csv", "--layer", "3"]) == 1


def test_export_without_pyarrow_says_what_to_install(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("pyarrow", "fastparquet", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["export", str(store), "--to", "parquet"]) == 1
    assert "exhubert-features[parquet]" in capsys.readouterr().err
    assert not store.with_name("features.parquet").exists()


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_path_without_a_store_is_an_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([command, str(tmp_path / "nothing")]) == 1
    err = capsys.readouterr().err
    assert f"there is no store at {tmp_path / 'nothing'}; expected a folder" in err


@pytest.mark.slow
def test_bench_store_prints_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    options = ["--clips", "20", "--large", "300", "--folder", str(tmp_path), "--json"]
    assert main(["bench", "store", *options]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["ways"][0]["name"] == "this store"
    assert all(way["read_clips_per_second"] > 0 for way in data["ways"])
    assert data["large"]["clips"] == 300
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    assert main(["bench", "store", *options[:-1]]) == 0
    assert "a store of 300 clips" in capsys.readouterr().out
