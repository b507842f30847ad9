"""Each host with the real toolkit, where it is installed; its contract without it, where it can be.

``pip install 'exhubert-features[lhotse]'`` and the like install them.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from waves import noise

from exhubert_features import Encoder, FeatureStore, load_encoder
from exhubert_features.errors import AudioError, UsageError

LENGTHS = {"a": 48_000, "b": 70_111}


@pytest.fixture(scope="module")
def encoder(two_layers: Path) -> Encoder:
    return load_encoder(two_layers, device="cpu")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hosts") / "audio"
    folder.mkdir()
    for name, samples in LENGTHS.items():
        soundfile.write(folder / f"{name}.wav", noise(samples), 16_000, "FLOAT")
    return folder


@pytest.fixture(scope="module")
def expected(encoder: Encoder, audio: Path) -> np.ndarray:
    """Mean of the last layer of each file, (2, D)."""
    return encoder.extract(audio, layers=-1).to_dataframe().filter(like="feature_").to_numpy()


def test_lhotse(two_layers: Path, encoder: Encoder, audio: Path, tmp_path: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.features.base import create_default_feature_extractor

    from exhubert_features.integrations.lhotse import ExHuBERTExtractor, ExHuBERTExtractorConfig

    assert type(create_default_feature_extractor("exhubert")) is ExHuBERTExtractor
    extractor = ExHuBERTExtractor(ExHuBERTExtractorConfig(source=str(two_layers), layer=1))
    recordings = [lhotse.Recording.from_file(path) for path in sorted(audio.iterdir())]
    cuts = lhotse.CutSet.from_cuts(recording.to_cut() for recording in recordings)
    frames = {}
    for jobs in (1, 2):
        stored = cuts.compute_and_store_features(
            extractor,
            tmp_path / f"jobs{jobs}",
            num_jobs=jobs,
            storage_type=lhotse.NumpyFilesWriter,
        )
        lhotse.validate(stored, read_data=True)
        frames[jobs] = {cut.recording_id: cut.load_features() for cut in stored}
    batched = cuts.compute_and_store_features_batch(
        extractor, tmp_path / "batch", storage_type=lhotse.NumpyFilesWriter, num_workers=0
    )
    lhotse.validate(batched, read_data=True)
    frames[3] = {cut.recording_id: cut.load_features() for cut in batched}
    for name, samples in LENGTHS.items():
        one = frames[1][name]
        assert one.shape == ((samples + 160) // 320, 32)
        (own,) = encoder.extract({name: noise(samples)}, frame_layers=1)
        count = encoder.frame_count(samples)
        np.testing.assert_allclose(one[:count], own.frames[0], atol=1e-4)  # type: ignore[index, union-attr]
        assert count < len(one)
        np.testing.assert_array_equal(one[-1], one[count - 1])
        for other in (frames[2][name], frames[3][name]):
            np.testing.assert_allclose(other, one, atol=1e-4)
    again = ExHuBERTExtractor.from_dict(extractor.to_dict())
    assert again.config == extractor.config
    assert extractor.feature_dim(16_000) == 32


def test_audinterface(two_layers: Path, audio: Path, expected: np.ndarray) -> None:
    pytest.importorskip("audinterface")
    from exhubert_features.integrations.audinterface import ProcessFunction, feature_interface

    interface = feature_interface(source=str(two_layers), device="cpu")
    files = [str(path) for path in sorted(audio.iterdir())]
    by_file = interface.process_files(files)
    np.testing.assert_allclose(by_file, expected, atol=1e-5)
    np.testing.assert_allclose(interface.process_file(files[0]), expected[:1], atol=1e-5)
    np.testing.assert_allclose(interface.process_folder(str(audio)), expected, atol=1e-5)
    np.testing.assert_allclose(interface.process_index(by_file.index), expected, atol=1e-5)
    signal = interface.process_signal(noise(48_000), 16_000)
    np.testing.assert_allclose(signal, expected[:1], atol=1e-5)
    both = feature_interface(source=str(two_layers), device="cpu", channels=[0, 1])
    stereo = both.process_signal(np.stack([noise(48_000)] * 2), 16_000)
    np.testing.assert_allclose(stereo, np.concatenate([expected[:1]] * 2, axis=1), atol=1e-5)
    # Their workers are processes: the function travels without its model.
    function = ProcessFunction(source=str(two_layers), device="cpu")
    before = function(noise(48_000)[None], 16_000)
    sent = pickle.dumps(function)
    assert len(sent) < 1_000
    np.testing.assert_array_equal(pickle.loads(sent)(noise(48_000)[None], 16_000), before)
    with pytest.raises(AudioError, match="signal has 10 samples"):
        interface.process_signal(noise(10), 16_000)
    lenient = feature_interface(source=str(two_layers), device="cpu", strict=False)
    with pytest.warns(UserWarning, match="signal has 10 samples"):
        assert lenient.process_signal(noise(10), 16_000).isna().all(axis=None)


def test_opensmile_users_find_the_same_table(two_layers: Path, audio: Path) -> None:
    opensmile = pytest.importorskip("opensmile")
    pytest.importorskip("audinterface")
    from exhubert_features.integrations.audinterface import feature_interface

    files = [str(path) for path in sorted(audio.iterdir())]
    theirs = opensmile.Smile().process_files(files)
    ours = feature_interface(source=str(two_layers), device="cpu").process_files(files)
    assert ours.index.equals(theirs.index)


def test_datasets(two_layers: Path, audio: Path, expected: np.ndarray, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from exhubert_features.integrations.datasets import (
        DatasetFeatures,
        lazy_clips,
        to_dataset,
        to_store,
    )

    paths = [str(path) for path in sorted(audio.iterdir())]
    emotion = datasets.ClassLabel(names=["fear", "joy"])
    dataset = datasets.Dataset.from_dict(
        {"audio": paths, "name": ["x", "y"], "emotion": [1, 0], "age": [30, 41]}
    ).cast_column("emotion", emotion)
    dataset = dataset.cast_column("audio", datasets.Audio(decode=False))
    function = DatasetFeatures(source=str(two_layers), device="cpu")
    for processes in (None, 2):
        mapped = dataset.map(function, batched=True, num_proc=processes)
        np.testing.assert_allclose(mapped["features"][:], expected, atol=1e-5)

    encoder = load_encoder(two_layers, device="cpu")
    clips = lazy_clips(dataset, id="name")
    store = encoder.extract(clips, layers=[1, 2], pools=["mean", "std"]).write(tmp_path / "store")
    assert store.ids == ["x", "y"]
    assert store["x"].meta == {"emotion": "joy", "age": "30"}
    table = to_dataset(store)
    np.testing.assert_allclose(table["layer2_mean"][:], expected, atol=2e-3)  # of a float16 store
    table.save_to_disk(tmp_path / "saved")
    again = datasets.load_from_disk(tmp_path / "saved")
    joyful = to_store(again.filter(lambda row: row["emotion"] == "joy"), tmp_path / "joyful")
    assert joyful.ids == ["x"]
    back = to_store(again, tmp_path / "back")
    assert back.fingerprint == store.fingerprint
    for name in store:
        np.testing.assert_array_equal(back[name].pooled, store[name].pooled)
        np.testing.assert_array_equal(back[name].logits, store[name].logits)
        assert back[name].meta == store[name].meta
        assert back[name].audio_sha256 == store[name].audio_sha256
    with pytest.raises(UsageError, match="one that to_dataset made"):
        to_store(dataset, tmp_path / "no")


def test_s3prl_contract(two_layers: Path, encoder: Encoder) -> None:
    """Without s3prl: its upstream does not import it."""
    from exhubert_features.integrations.s3prl import UpstreamExpert

    expert = UpstreamExpert(str(two_layers), refresh=False).eval()
    assert expert.get_downsample_rates("hidden_states") == 320
    waves = [torch.tensor(noise(samples)) for samples in (48_001, 5_000)]
    found = expert(waves)
    assert len(found["hidden_states"]) == 3
    for state in found["hidden_states"]:
        assert state.shape == (2, 151, 32)  # ⌈48,001 / 320⌉
        assert state[0].abs().sum(dim=-1).min() > 0
        for row, own in ((0, 149), (1, 15)):
            assert (state[row, own:] == state[row, own - 1]).all()
    alone = encoder(noise(5_000), layers=2, logits=False).layers[0, 0, :15]
    np.testing.assert_allclose(found["last_hidden_state"][1, :15].detach(), alone, atol=1e-5)


def test_s3prl(two_layers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("s3prl")
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):  # gone since 2.9; s3prl 0.4.18 wants both
        monkeypatch.setattr(torchaudio, "set_audio_backend", lambda name: None, raising=False)
        effects = ModuleType("torchaudio.sox_effects")
        effects.apply_effects_file = effects.apply_effects_tensor = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, effects.__name__, effects)
    nn = pytest.importorskip("s3prl.nn")
    from exhubert_features.integrations.s3prl import register

    register()
    upstream = nn.S3PRLUpstream("exhubert_local", path_or_url=str(two_layers)).eval()
    assert (upstream.num_layers, upstream.hidden_sizes) == (3, [32] * 3)
    assert set(upstream.downsample_rates) == {320}
    waves = torch.zeros(2, 48_000)
    waves[0] = torch.tensor(noise(48_000))
    waves[1, :20_000] = torch.tensor(noise(20_000))
    states, lengths = upstream(waves, torch.tensor([48_000, 20_000]))
    assert [state.shape for state in states] == [(2, 150, 32)] * 3
    assert lengths[0].tolist() == [150, 63]
    featurizer = nn.Featurizer(upstream)
    assert featurizer(states, lengths)[0].shape == (2, 150, 32)


def test_espnet(two_layers: Path, encoder: Encoder) -> None:
    pytest.importorskip("espnet2.asr.frontend.abs_frontend")
    from exhubert_features.integrations.espnet import ExHuBERTFrontend

    frontend = ExHuBERTFrontend(str(two_layers), layer=2)
    assert frontend.output_size() == 32
    wave = torch.zeros(2, 48_000)
    wave[0], wave[1, :5_000] = torch.tensor(noise(48_000)), torch.tensor(noise(5_000))
    frontend.eval()
    features, lengths = frontend(wave, torch.tensor([48_000, 5_000]))
    assert lengths.tolist() == [149, 15]
    assert features.shape == (2, 149, 32)
    alone = encoder(noise(5_000), layers=2, logits=False).layers[0, 0, :15]
    np.testing.assert_allclose(features[1, :15].detach(), alone, atol=1e-5)
    features.sum().backward()
    assert any(weight.grad is not None for weight in frontend.parameters())
    with pytest.raises(UsageError, match="fs is 8000"):
        ExHuBERTFrontend(str(two_layers), fs=8_000)


def test_espnet_in_a_model(two_layers: Path) -> None:
    """ESPnet's own ASR model, built by its task from a config that names the frontend."""
    asr = pytest.importorskip("espnet2.tasks.asr")
    from exhubert_features.integrations.espnet import ExHuBERTFrontend

    asr.frontend_choices.classes["exhubert"] = ExHuBERTFrontend
    parser = asr.ASRTask.get_parser()
    arguments = parser.parse_args(
        ["--output_dir", "unused", "--token_type", "char", "--frontend", "exhubert"]
    )
    arguments.token_list = ["<blank>", "<unk>", "a", "b", "<sos/eos>"]
    arguments.frontend_conf = {"source": str(two_layers), "freeze": True}
    arguments.specaug, arguments.normalize = None, None
    arguments.encoder, arguments.encoder_conf = "rnn", {"hidden_size": 8, "num_layers": 1}
    arguments.input_size = None
    arguments.model_conf = {"ctc_weight": 1.0}  # no decoder
    model = asr.ASRTask.build_model(arguments)
    wave = torch.stack([torch.tensor(noise(16_000, seed)) for seed in (0, 1)])
    text = torch.tensor([[2, 3], [3, 2]])
    loss, _, _ = model(wave, torch.tensor([16_000] * 2), text, torch.tensor([2, 2]))
    loss.backward()
    assert torch.isfinite(loss)


def test_mteb(two_layers: Path, audio: Path, expected: np.ndarray, tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    datasets = pytest.importorskip("datasets")
    from mteb.abstasks import AbsTaskClassification

    from exhubert_features.integrations.mteb import ExHuBERTEmbeddings

    model = ExHuBERTEmbeddings(str(two_layers), device="cpu")
    waves = [noise(samples) for samples in LENGTHS.values()]
    rows = [{"audio": {"array": wave, "sampling_rate": 16_000}} for wave in waves]
    loader = torch.utils.data.DataLoader(rows, batch_size=2)  # type: ignore[arg-type]
    np.testing.assert_allclose(model.encode(loader), expected, atol=1e-5)
    assert "CREMA_D" in model.mteb_model_meta.training_datasets

    class Tones(AbsTaskClassification):
        metadata = mteb.get_task("CREMA_D").metadata.model_copy(
            update={"name": "Tones", "eval_splits": ["test"]}
        )
        input_column_name = "audio"
        samples_per_label = 4

        def load_data(self, **kwargs: object) -> None:
            def tones(seed: int) -> object:
                random = np.random.default_rng(seed)
                time = np.arange(8_000) / 16_000
                return datasets.Dataset.from_list(
                    [
                        {
                            "audio": {
                                "array": np.sin(2 * np.pi * (300 + 2_000 * label) * time)
                                + 0.1 * random.normal(size=8_000),
                                "sampling_rate": 16_000,
                            },
                            "label": label,
                        }
                        for label in [0, 1] * 6
                    ]
                )

            self.dataset = {"train": tones(0), "test": tones(1)}
            self.data_loaded = True

    cache = mteb.ResultCache(tmp_path / "cache")
    result = mteb.evaluate(model, Tones(), cache=cache, overwrite_strategy="always")
    assert result.task_results[0].scores["test"][0]["accuracy"] > 0.9


def test_nkululeko(two_layers: Path, audio: Path, expected: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("nkululeko.feat_extract.featureset")
    pytest.importorskip("audformat")
    import configparser

    from nkululeko.experiment_context import ExperimentContext, use_context
    from nkululeko.feature_extractor import FeatureExtractor

    from exhubert_features.cli import main
    from exhubert_features.integrations.nkululeko import register

    register()
    encoder = load_encoder(two_layers, device="cpu")
    store = encoder.extract(audio, layers=2, dtype="float32").write(tmp_path / "store")
    data = store.to_dataframe()[[]].assign(emotion=["joy", "fear"])
    features = str(tmp_path / "features.csv")
    command = ["export", str(store.path), "--to", "csv", "--features-only", "-o", features]
    assert main(command) == 0
    config = configparser.ConfigParser()
    config.read_dict(
        {
            "EXP": {"root": str(tmp_path), "name": "exp"},
            "DATA": {"databases": "['set']", "target": "emotion"},
            "FEATS": {
                "type": "['import']",
                "import_file": f"['{features}']",
                "exhubert.model": str(two_layers),
            },
            "MODEL": {"type": "svm", "device": "cpu"},
        }
    )
    context = ExperimentContext(config)
    for kind in ("import", "exhubert"):
        with use_context(context):
            extractor = FeatureExtractor(data, [kind], "set", "train", context=context)
            found = extractor.extract()
        assert found.shape == (2, 32)
        assert found.index.equals(data.index)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        if kind == "exhubert":
            np.testing.assert_allclose(
                extractor.extract_sample(noise(48_000), 16_000), expected[0], atol=1e-5
            )


def test_features_only(two_layers: Path, audio: Path, tmp_path: Path) -> None:
    """Nothing but features and audformat's index: a label would be a feature to who imports it."""
    import pandas as pd

    from exhubert_features.cli import main

    table = tmp_path / "list.csv"
    table.write_text(
        f"file,emotion,start,end\n{audio / 'a.wav'},joy,0.5,2\n{audio / 'b.wav'},fear,,\n"
    )
    encoder = load_encoder(two_layers, device="cpu")
    store: FeatureStore = encoder.extract(table, layers=[1, 2]).write(tmp_path / "store")
    options = ["--to", "csv", "--features-only", "-o", str(tmp_path / "only.csv")]
    assert main(["export", str(store.path), *options]) == 0
    found = pd.read_csv(tmp_path / "only.csv")
    assert list(found.columns) == ["file", "start", "end", *(f"feature_{n}" for n in range(32))]
    starts, ends = (pd.to_timedelta(found[name]).dt.total_seconds() for name in ("start", "end"))
    assert (starts.tolist(), ends.tolist()) == ([0.5, 0.0], [2.0, pytest.approx(70_111 / 16_000)])
    stored = store.matrix(layer=2).astype(np.float64)
    np.testing.assert_allclose(found.filter(like="feature_"), stored, rtol=1e-5)
