"""The report: self-contained, escaped, right in its numbers, whole for any shape of data."""

from __future__ import annotations

import base64
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from exhubert_features.errors import StoreError
from exhubert_features.evaluation import Evaluation, Labels
from exhubert_features.evaluation.splits import Fold, Protocol
from exhubert_features.records import Interval
from exhubert_features.report import (
    CalibrationCurve,
    HeadComparison,
    LayerCurve,
    Report,
    write_report,
)

EMOTIONS = ("anger", "happiness", "neutral", "sadness")
HOSTILE = (
    "<script>alert(1)</script>",
    "_underscore",
    "$\\frac{x$",
    'quote" onload="alert(2)',
    "怒り",
    "a & b <img src=x onerror=alert(3)>",
)
CHROMIUM = shutil.which("chromium")
BROWSER = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)


def layer_curve() -> LayerCurve:
    mean = np.linspace(0.4, 0.7, 13)
    weighted = Interval(value=0.72, low=0.65, high=0.8)
    return LayerCurve(layers=tuple(range(13)), mean=mean, low=mean - 0.05, high=mean + 0.05,
                      chosen={9: 2, 3: 1}, weighted=weighted)  # fmt: skip


def evaluation(
    values: np.ndarray,
    outputs: np.ndarray,
    *,
    speakers: int = 9,
    classes: tuple[str, ...] = (),
    target: str = "emotion",
    groups: np.ndarray | None = None,
    ids: np.ndarray | None = None,
) -> Evaluation:
    """One fold in which some model said ``outputs``."""
    clips = len(values)
    if groups is None:
        groups = np.array([f"speaker{index % speakers:03d}" for index in range(clips)])
    everyone = np.arange(clips)
    labels = Labels(
        target=target,
        task="classification" if classes else "regression",
        classes=classes,
        rows=everyone,
        ids=np.array([f"clip{index}" for index in range(clips)]) if ids is None else ids,
        clips=everyone.astype(str),
        values=values,
        groups=groups,
        group="speaker",
    )
    fold = Fold(name="1", train=everyone[:9], test=everyone, inner=())
    words = "Leave-one-speaker-out.\nThe test fold is touched once."
    return Evaluation(
        labels=labels,
        protocol=Protocol(folds=(fold,), words=words),
        outputs=outputs,
        chosen=({"layer": 9, "C": 0.1},),
        temperatures=(2.0,),
        title="Emotion by a linear head",
        curve=layer_curve(),
        features=np.random.default_rng(0).normal(size=(clips, 4)),
        seed=3,
    )


def content(made: Evaluation, **changes: Any) -> Report:
    report = made.content(command="exhubert train store -o head", made="2024-09-01 12:00")
    reproduce = {**report.reproduce, "fingerprint": {"model": {"source": "tiny"}}}
    return replace(report, **{"warnings": (), "reproduce": reproduce} | changes)


def classification(
    classes: tuple[str, ...] = EMOTIONS, clips: int = 60, speakers: int = 9, present: int = 99,
    groups: np.ndarray | None = None, ids: np.ndarray | None = None, **changes: Any,
) -> Report:  # fmt: skip
    generator = np.random.default_rng(0)
    truth = generator.integers(min(present, len(classes)), size=clips)
    logits = 2 * generator.normal(size=(clips, len(classes)))
    logits[np.arange(clips), truth] += 2
    return content(
        evaluation(truth, logits, speakers=speakers, classes=classes, groups=groups, ids=ids),
        **changes,
    )


def regression(clips: int = 60, speakers: int = 9, **changes: Any) -> Report:
    generator = np.random.default_rng(0)
    truth = generator.normal(size=clips)
    prediction = 0.8 * truth + 0.3 * generator.normal(size=clips)
    made = evaluation(truth, prediction[:, None], speakers=speakers, target="arousal")
    return content(made, **changes)


def hostile(clips: int = 60, **changes: Any) -> Report:
    changes = {
        "title": "<script>alert('title')</script>",
        "target": "<u>emotion</u>",
        "ids": np.array(["</script><script>alert(4)</script>"] * clips),
        "groups": np.array([f"</svg><script>alert({n % 9})</script>" for n in range(clips)]),
        "warnings": ["<b>The clips were split at random.</b>"],
        "failures": [{"id": "<i>x</i>", "file": "a.wav", "kind": "too_short", "reason": "0.01 s"}],
        "reproduce": {"command": "exhubert train '<script>'", "fingerprint": {"<b>": "</pre>"}},
        **changes,
    }
    return classification(HOSTILE, clips, **changes)


class Page(HTMLParser):
    """Tags, texts and every address that a page names."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name.split(":")[-1] in ("src", "href", "srcset", "action", "data"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data: str) -> None:
        self.text += data


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def read_json(directory: Path) -> dict[str, Any]:
    text = (directory / "report.json").read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse)


def test_the_main_result_stands_first_in_the_json(tmp_path: Path) -> None:
    report = classification()
    write_report(tmp_path, report)
    data = read_json(tmp_path)
    uar = report.metrics["uar"]
    assert list(data)[:2] == ["uar", "uar_interval"]
    assert data["uar"] == pytest.approx(uar.value)
    assert data["uar_interval"] == pytest.approx([uar.low, uar.high])
    assert data["chance"] == 0.25
    assert np.sum(data["confusion"]) == len(report.ids)
    assert data["clips"]["truth"][0] == EMOTIONS[report.truth[0]]
    assert np.shape(data["clips"]["probabilities"]) == (60, 4)
    write_report(tmp_path / "regression", regression())
    assert list(read_json(tmp_path / "regression"))[:2] == ["ccc", "ccc_interval"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "report",
    [
        pytest.param(lambda: classification(speakers=1), id="one speaker"),
        pytest.param(lambda: classification(("no", "yes"), clips=5, speakers=2), id="five clips"),
        pytest.param(lambda: classification(present=2), id="absent classes"),
        pytest.param(
            lambda: classification(tuple(f"class {n}" for n in range(40)), clips=400), id="forty"
        ),
        pytest.param(lambda: classification(clips=1200, speakers=200), id="200 speakers"),
        pytest.param(lambda: regression(), id="regression"),
        pytest.param(lambda: regression(clips=20, speakers=20), id="one clip per speaker"),
        pytest.param(
            lambda: classification(
                layer_curve=None, map_points=None, probabilities=None, calibration={}, folds=[],
                calibration_curves={}, mistakes=(), raw_probabilities=None, reproduce={},
            ),
            id="bare",
        ),
        pytest.param(hostile, id="hostile"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("error")
def test_any_shape_of_data_becomes_a_self_contained_page(report: Any, tmp_path: Path) -> None:
    settings = dict(matplotlib.rcParams)
    page = Page(write_report(tmp_path, report()))
    assert dict(matplotlib.rcParams) == settings
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(page.tags)
    assert not page.handlers
    assert all(address.startswith(("data:image/png", "#")) for address in page.addresses)
    pictures = list(tmp_path.glob("*.png"))
    assert page.tags["svg"] == len(pictures) >= 3
    assert all(imread(picture).std() > 0.01 for picture in pictures)
    read_json(tmp_path)


def test_hostile_names_are_shown_not_run(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, hostile()))
    for name in HOSTILE:
        assert name in page.text
    assert "<b>The clips were split at random.</b>" in page.text
    assert "exhubert train '<script>'" in page.text
    assert not {"script", "img", "b", "u"} & set(page.tags) - {"b"}
    assert page.tags["b"] == 1  # the headline's own


def test_warnings_name_what_makes_the_result_doubtful(tmp_path: Path) -> None:
    failures = [{"id": str(n), "file": "", "kind": "nan", "reason": "NaN"} for n in range(300)]
    report = classification(present=2, speakers=3, warnings=["Random split."], failures=failures)
    text = Page(write_report(tmp_path, report)).text
    for expected in (
        "Random split.",
        "300 clips have no features",
        "The first 200 of 300",
    ):
        assert expected in text
    assert len(read_json(tmp_path)["failures"]) == 300
    quiet = Page(write_report(tmp_path / "quiet", classification())).text
    assert "No warnings; no clip failed." in quiet


def test_clips_without_speakers_have_no_speaker_pictures(tmp_path: Path) -> None:
    page = write_report(tmp_path, classification(clips=30, speakers=30))
    assert not (tmp_path / "groups.png").exists() and not (tmp_path / "map_groups.png").exists()
    assert "Groups (speakers)" not in page.read_text(encoding="utf-8")


def test_class_table_counts_by_hand(tmp_path: Path) -> None:
    outputs = np.eye(2)[[0, 0, 1, 1]]
    made = evaluation(np.array([0, 0, 0, 1]), outputs, speakers=2, classes=("cold", "hot"))
    html = write_report(tmp_path, content(made)).read_text(encoding="utf-8")
    cells = "".join(html.split()).replace('<tdclass="number">', "|").replace("</td>", "")
    assert re.search(r'"wrap">cold\|3\|0\.667\(\S*\)\|1\.000<', cells)  # both said "cold" were
    assert re.search(r'"wrap">hot\|1\|1\.000\(\S*\)\|0\.500<', cells)
    assert "hot(1)" in cells


def test_group_scores_are_each_groups_own() -> None:
    made = evaluation(
        np.array([0, 1, 0, 0]),
        np.eye(2)[[0, 0, 0, 1]],
        classes=("cold", "hot"),
        groups=np.array(["a", "a", "b", "b"]),
    )
    assert [(g.name, g.clips, g.score) for g in content(made).group_scores] == [
        ("a", 2, 0.5),
        ("b", 2, 0.5),
    ]
    single = regression(clips=9, speakers=9)
    assert all(np.isnan(group.score) for group in single.group_scores)


def test_the_surest_mistakes_come_first_and_can_be_heard(tmp_path: Path) -> None:
    audio = tmp_path / "audio of ä"
    audio.mkdir()
    soundfile.write(audio / "clip.wav", np.zeros(8000, np.float32), 16_000)
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [2.0, 0.0]])
    made = evaluation(np.array([0, 0, 0, 1]), logits, speakers=2, classes=("cold", "hot"))
    report = content(made)
    assert [(m.id, m.truth, m.prediction) for m in report.mistakes] == [
        ("clip2", "cold", "hot"),
        ("clip3", "hot", "cold"),
        ("clip1", "cold", "hot"),
    ]
    places = [{"file": str(audio / "clip.wav"), "start": 0.1, "end": 0.35}, {"file": "/gone.wav"}]
    found = [replace(m, **p) for m, p in zip(report.mistakes[:2], places, strict=True)]
    linked = Page(write_report(tmp_path / "linked", replace(report, mistakes=found)))
    assert linked.tags["audio"] == 1 and "/gone.wav is not there" in linked.text
    (address,) = [name for name in linked.addresses if "clip.wav" in name]
    assert address == "../audio%20of%20%C3%A4/clip.wav#t=0.100,0.350"
    page = write_report(tmp_path / "sent", replace(report, mistakes=found), embed_audio=True)
    (address,) = [name for name in Page(page).addresses if name.startswith("data:audio")]
    wave, rate = soundfile.read(io.BytesIO(base64.b64decode(address.split(",")[1])))
    assert (len(wave), rate) == (4000, 16_000)  # the part alone, and not the recording


def test_largest_errors_of_numbers() -> None:
    made = evaluation(np.array([1.0, 2.0, 3.0]), np.array([[1.0], [4.5], [2.0]]), target="arousal")
    listed = [(m.id, m.truth, m.prediction, m.size) for m in content(made).mistakes]
    assert listed == [("clip1", "2", "4.5", 2.5), ("clip2", "3", "2", 1.0)]


def test_calibration_lines_do_not_jump_to_bins_of_few_clips() -> None:
    from exhubert_features.report.plots import draw_calibration

    clips = np.array([0, 1, 12, 30, 2])
    curve = CalibrationCurve(clips=clips, confidence=np.linspace(0.1, 0.9, 5), hits=np.full(5, 0.5))
    upper = draw_calibration({"scaled": curve}).axes[0]
    line = next(line for line in upper.lines if line.get_label() == "scaled")
    np.testing.assert_allclose(line.get_xdata(), [0.5, 0.7])
    faint, firm = upper.collections
    assert len(faint.get_offsets()) == 2 and len(firm.get_offsets()) == 2
    assert firm.get_sizes().min() > faint.get_sizes().max()


def test_the_page_names_date_model_and_settings_in_words(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, classification(model="amiriparian/ExHuBERT")))
    for expected in ("2024-09-01 12:00", "amiriparian/ExHuBERT", "layer 9, penalty C = 0.1"):
        assert expected in page.text
    assert "layer 9 in 2, layer 3 in 1 of 3 folds" in page.text


def test_a_report_that_cannot_be_finished_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, classification())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="cannot be written"):
        write_report(tmp_path, regression())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def no_space(_: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_windows_are_called_windows(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, classification(windows=True)))
    assert "test windows" in page.text and "test clips" not in page.text


def test_calibration_words_fit_the_mode(tmp_path: Path) -> None:
    fitted = Page(write_report(tmp_path / "a", classification())).text
    tested = Page(write_report(tmp_path / "b", classification(fitted=False))).text
    assert "learned on its inner folds" in fitted and "Nothing was fitted" not in fitted
    assert "Nothing was fitted on these clips" in tested and "inner folds" not in tested.split(
        "Calibration")[1].split("Map")[0]  # fmt: skip


def test_figures_of_an_earlier_report_of_another_kind_go(tmp_path: Path) -> None:
    write_report(tmp_path, classification())
    assert (tmp_path / "confusion.png").exists()
    write_report(tmp_path, regression())
    assert not (tmp_path / "confusion.png").exists()
    assert (tmp_path / "scatter.png").exists()


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name, classification()) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_importing_the_dataclasses_imports_no_plotting() -> None:
    code = "import sys, exhubert_features.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def browse(page: Path, profile: Path, *options: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, *BROWSER, f"--user-data-dir={profile}", *options, page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", hostile(clips=60))
    seen = browse(page, tmp_path / "profile", "--dump-dom")
    assert "CONSOLE" not in seen.stderr
    assert seen.stdout.count("<svg") == len(list(page.parent.glob("*.png")))
    broken = page.with_name("broken.html")
    html = page.read_text(encoding="utf-8")
    broken.write_text(html.replace("<footer>", '<img src="gone.png"><footer>'), encoding="utf-8")
    assert "CONSOLE" in browse(broken, tmp_path / "profile", "--dump-dom").stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_paints_it_light_and_dark(tmp_path: Path) -> None:
    page = write_report(tmp_path / "report", classification())
    brightness = []
    for options in ((), ("--force-dark-mode", "--blink-settings=preferredColorScheme=0")):
        picture = tmp_path / f"{len(options)}.png"
        browse(page, tmp_path / "profile", f"--screenshot={picture}", "--window-size=600,1500",
               *options)  # fmt: skip
        painted = imread(picture)[..., :3]
        assert painted.std() > 0.05
        brightness.append(float(np.median(painted)))
    assert brightness[0] > 0.9 and brightness[1] < 0.2


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.01, 0.2, "is 0.100 higher than that of heads/<b>"), (-0.1, 0.3, "so it may be chance")],
)
def test_comparison_stands_in_words_and_numbers(
    tmp_path: Path, low: float, high: float, words: str
) -> None:
    difference = Interval(value=0.1, low=low, high=high)
    found = HeadComparison(against="heads/<b>", difference=difference, p_value=0.03)
    page = Page(write_report(tmp_path, classification(comparisons=(found,))))
    assert words in page.text
    assert ("chance." in page.text) == (low < 0)
    assert read_json(tmp_path)["comparisons"][0]["difference"]["low"] == low
    assert "and p = 0.030" in page.text
    clear = replace(found, p_value=0.0001)
    assert (
        "and p < 0.001" in Page(write_report(tmp_path, classification(comparisons=(clear,)))).text
    )


@pytest.mark.parametrize(
    ("speakers", "over"),
    [(9, "over the 9 speaker groups"), (1, "clips"), (60, "over the 60 clips")],
)
def test_page_says_what_the_intervals_are_over(tmp_path: Path, speakers: int, over: str) -> None:
    page = Page(write_report(tmp_path, regression(speakers=speakers)))
    assert "jackknife" in page.text and over in page.text
