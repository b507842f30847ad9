"""Audio at URLs: the same features as from files, and errors that name the URL."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from waves import noise

from exhubert_features import Encoder, FeatureStore, load_encoder
from exhubert_features.audio import is_url, read_audio
from exhubert_features.audio.remote import local_copy
from exhubert_features.cli import main
from exhubert_features.errors import AudioError, MissingDependency, UsageError
from exhubert_features.extraction import plan
from exhubert_features.records import Entry

fsspec: Any = pytest.importorskip("fsspec", reason="needs the extra [remote]")
BUCKET = "memory://bucket/audio"


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "audio"
    (folder / "b").mkdir(parents=True)
    soundfile.write(folder / "a.wav", noise(20_000, 1), 16_000)
    soundfile.write(folder / "b/c.flac", noise(50_000, 2), 44_100)
    (folder / "broken.wav").write_bytes(b"RIFF")
    (folder / "notes.txt").write_text("no audio")
    return folder


@pytest.fixture(autouse=True)
def bucket(here: Path) -> Iterator[None]:
    memory = fsspec.filesystem("memory")
    memory.put(str(here), "/bucket/audio", recursive=True)
    yield
    memory.rm("/bucket", recursive=True)


def vectors(encoder: Encoder, source: Any, **options: Any) -> dict[str, np.ndarray]:
    table = encoder.extract(source, layers=1, **options).to_dataframe()
    return dict(zip(table["id"], table.filter(like="feature_").to_numpy(), strict=True))


def test_a_folder_at_a_url_is_the_folder(encoder: Encoder, here: Path) -> None:
    expected = vectors(encoder, here)
    found = vectors(encoder, f"{BUCKET}/")
    assert found.keys() == expected.keys() == {"a.wav", "b/c.flac", "broken.wav"}
    for name, vector in expected.items():
        np.testing.assert_array_equal(found[name], vector)
    work = plan(f"{BUCKET}/")
    assert work.about() == 3 and work.left_out == 1


def test_files_and_rows_at_urls(encoder: Encoder, here: Path, tmp_path: Path) -> None:
    expected = vectors(encoder, here)
    name = f"{BUCKET}/a.wav"
    np.testing.assert_allclose(vectors(encoder, name)[name], expected["a.wav"], atol=1e-6)
    np.testing.assert_allclose(
        vectors(encoder, f"file://{here}/a.wav")[f"file://{here}/a.wav"],
        expected["a.wav"],
        atol=1e-6,
    )
    manifest = tmp_path / "corpus.csv"
    manifest.write_text(f"id,file,end\nwhole,{name},\npart,{name},1.0\nroot,b/c.flac,\n")
    # One thread, as all who read a file in fsspec's memory share its position.
    found = vectors(encoder, manifest, data_root=BUCKET, workers=1)
    np.testing.assert_allclose(found["whole"], expected["a.wav"], atol=1e-6)
    np.testing.assert_allclose(found["root"], expected["b/c.flac"], atol=1e-6)
    assert not np.array_equal(found["part"], found["whole"])
    manifest.write_text("file\n{data_root}/a.wav\n")
    (found_vector,) = vectors(encoder, manifest, data_root=f"{BUCKET}/").values()
    np.testing.assert_allclose(found_vector, expected["a.wav"], atol=1e-6)


def test_a_store_goes_on_and_names_what_fails(
    two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", str(two_layers), "--device", "cpu", "-o", str(tmp_path / "store")]
    inputs = [f"{BUCKET}/a.wav", f"{BUCKET}/broken.wav", f"{BUCKET}/gone.wav"]
    assert main(["extract", *inputs, *options]) == 3
    said = capsys.readouterr().err
    assert f"{BUCKET}/broken.wav cannot be read as audio" in said
    assert f"{BUCKET}/gone.wav cannot be fetched" in said and "credentials" in said
    assert "exhubert-" not in said.replace("exhubert-features", ""), "the copy is nobody's business"
    fsspec.filesystem("memory").pipe("/bucket/audio/gone.wav", b"")
    assert main(["extract", inputs[0], *options]) == 0
    assert "In the store already: 1 clip" in capsys.readouterr().out


def test_errors_name_the_url(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=rf"{BUCKET}/none\.wav cannot be fetched") as missing:
        read_audio(f"{BUCKET}/none.wav")
    assert missing.value.kind == "missing"
    with pytest.raises(AudioError, match=r"nothing reads nosuch://x/a\.wav") as unknown:
        read_audio("nosuch://x/a.wav")
    assert unknown.value.kind == "unreachable"
    with pytest.raises(UsageError, match="a table at a URL"):
        list(plan(f"{BUCKET}/corpus.csv"))
    with pytest.raises(UsageError, match="no audio in memory://nothing/"):
        list(plan("memory://nothing/"))


def test_a_folder_without_its_slash(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str) -> bool:
        with pytest.raises(AudioError, match=f"{url} is a folder.* A slash at its end") as told:
            read_audio(url)
        return told.value.kind == "directory"

    assert refused(BUCKET) and refused(f"file://{here}")
    # Some libraries leave the copy empty and say nothing.
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "get_file", lambda *_: None)
    assert refused(BUCKET)


def test_what_a_protocol_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    with pytest.raises(MissingDependency, match=r"s3://b/a\.wav is not installed.*s3fs"):
        read_audio("s3://b/a.wav")


def test_a_row_of_an_unknown_scheme_fails_alone(
    here: Path, two_layers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "corpus.csv"
    manifest.write_text(f"file\n{here}/a.wav\nfoo://x/a.wav\n{here}/b/c.flac\n")
    store = tmp_path / "store"
    options = ["--model", str(two_layers), "--device", "cpu", "-o", str(store)]
    assert main(["extract", str(manifest), *options]) == 3
    assert "nothing reads foo://x/a.wav" in capsys.readouterr().err
    stored = FeatureStore(store)
    assert sorted(stored.ids) == [f"{here}/a.wav", f"{here}/b/c.flac"]
    assert [(one.id, one.kind) for one in stored.failures] == [("foo://x/a.wav", "unreachable")]


@pytest.mark.parametrize("given", ["foo://x/a.wav", "foo://x/"])
def test_an_input_of_an_unknown_scheme_is_refused(given: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"nothing reads {given}"):
        plan([BUCKET + "/", given])
    manifest = tmp_path / "corpus.csv"
    manifest.write_text("file\na.wav\n")
    with pytest.raises(UsageError, match=f"nothing reads {given}"):
        plan(manifest, data_root=given)


def test_names_at_urls_need_nothing_that_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(scheme: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", lacking)
    assert [entry.file for entry in plan("s3://b/a.wav")] == ["s3://b/a.wav"]


def test_hidden_files_at_a_url_are_passed_over_as_here(tmp_path: Path) -> None:
    root = tmp_path / ".corpus"  # as given
    for name in ("b.wav", ".b.wav", ".hidden/c.wav", "a/.c/d.wav", "a/e.wav", "a/._e.wav"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"RIFF")
    here = plan(root)
    fsspec.filesystem("memory").put(str(root), "/bucket/hidden", recursive=True)
    for url in (f"file://{root}/", "memory://bucket/hidden/"):
        there = plan(url)
        assert [one.id for one in there] == [one.id for one in here] == ["b.wav", "a/e.wav"]
        assert there.left_out == here.left_out == 2


def test_a_folder_that_cannot_be_listed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a/1.wav", "b/2.wav"):
        memory.pipe(f"/unlisted/{name}", b"RIFF")
    listed = type(memory).ls

    def failing(self: object, path: str, **options: object) -> object:
        if path.rstrip("/").endswith("/b"):
            raise OSError("503 Slow Down")
        return listed(self, path, **options)

    monkeypatch.setattr(type(memory), "ls", failing)
    with pytest.raises(AudioError, match="503 Slow Down"):
        list(plan("memory://unlisted/"))
    monkeypatch.undo()
    assert [entry.id for entry in plan("memory://unlisted/")] == ["a/1.wav", "b/2.wav"]
    memory.rm("/unlisted", recursive=True)


def test_names_with_colons_are_no_chains(tmp_path: Path) -> None:
    names = ("a::b.wav", "zip::c.wav")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/bucket/colons", recursive=True)
    for url in (f"file://{tmp_path}/", "memory://bucket/colons/"):
        assert dict(contents(url)) == {name: name.encode() for name in names}


def test_chains_are_read(here: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(here / "a.wav", "b/a.wav")
    fsspec.filesystem("memory").put(str(path), "/bucket/corpus.zip")
    for target in (path, f"file://{path}", "memory://bucket/corpus.zip"):
        assert len(read_audio(f"zip://b/a.wav::{target}")) == 20_000
    assert len(read_audio(f"simplecache://::{BUCKET}/a.wav")) == 20_000


def contents(folder: str) -> Iterator[tuple[str, bytes]]:
    """Bytes of what a folder at a URL lists, fetched by the URLs it gives."""
    for entry in plan(folder):
        assert isinstance(entry, Entry)
        with local_copy(entry.file) as copy:
            yield entry.id, Path(copy).read_bytes()


def test_without_urls_fsspec_is_not_imported(here: Path, tmp_path: Path) -> None:
    (tmp_path / "fsspec.py").write_text("raise ModuleNotFoundError('no fsspec', name='fsspec')")
    code = (
        "from exhubert_features.audio import read_audio\n"
        "import sys\n"
        f"assert len(read_audio({str(here / 'a.wav')!r})) == 20_000\n"
        "assert 'fsspec' not in sys.modules or not sys.modules['fsspec'].__file__\n"
        "read_audio('memory://x/a.wav')\n"
    )
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert "pip install 'exhubert-features[remote]'" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("s3://bucket/a.wav", True),
        ("hf://datasets/x/a.wav", True),
        ("zip://a.wav::s3://b/c.zip", True),
        ("C:/audio/a.wav", False),
        ("audio//a.wav", False),
        ("/data/x://y", False),
    ],
)
def test_what_is_a_url(name: str, url: bool) -> None:
    assert is_url(name) is url
