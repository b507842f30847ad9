"""The report: self-contained, escaped, right in its numbers, whole for any shape of data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from exhubert_features.bootstrap import classification_metrics, regression_metrics
from exhubert_features.evaluation.metrics import Interval, softmax
from exhubert_features.report import (
    HeadComparison,
    LayerCurve,
    Report,
    group_scores,
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
                      best=9, weighted=weighted)  # fmt: skip


def common(clips: int, speakers: int, generator: np.random.Generator) -> dict[str, Any]:
    groups = np.array([f"speaker{index % speakers:03d}" for index in range(clips)])
    return {
        "title": "Emotion by a linear head",
        "ids": np.array([f"clip{index}" for index in range(clips)]),
        "groups": groups,
        "protocol": "Leave-one-speaker-out.\nThe test fold is touched once.",
        "folds": [{"name": "1", "test_groups": groups.tolist(), "train_clips": 9, "test_clips": 3,
                   "chosen": {"layer": 9, "C": 0.1}, "uar": 0.5}],
        "layer_curve": layer_curve(),
        "map_points": generator.normal(size=(clips, 2)),
        "reproduce": {"command": "exhubert train store -o head", "seed": 3,
                      "versions": {"numpy": "2"}, "fingerprint": {"model": {"source": "tiny"}}},
    }  # fmt: skip


def classification(
    classes: tuple[str, ...] = EMOTIONS, clips: int = 60, speakers: int = 9, present: int = 99,
    **changes: Any,
) -> Report:  # fmt: skip
    generator = np.random.default_rng(0)
    fields = common(clips, speakers, generator)
    truth = generator.integers(min(present, len(classes)), size=clips)
    logits = 2 * generator.normal(size=(clips, len(classes)))
    logits[np.arange(clips), truth] += 2
    metrics = classification_metrics(
        truth, logits.argmax(axis=1), classes=classes, groups=fields["groups"], resamples=50
    )
    fields |= {"task": "classification", "target": "emotion", "classes": classes, "truth": truth,
               "prediction": logits.argmax(axis=1), "probabilities": softmax(logits),
               "metrics": metrics, "calibration": {"temperature": 2.0, "ece": 0.1}}  # fmt: skip
    return Report(**(fields | changes))


def regression(clips: int = 60, speakers: int = 9, **changes: Any) -> Report:
    generator = np.random.default_rng(0)
    fields = common(clips, speakers, generator)
    truth = generator.normal(size=clips)
    prediction = 0.8 * truth + 0.3 * generator.normal(size=clips)
    metrics = regression_metrics(truth, prediction, groups=fields["groups"], resamples=50)
    fields |= {"task": "regression", "target": "arousal", "truth": truth,
               "prediction": prediction, "metrics": metrics}  # fmt: skip
    return Report(**(fields | changes))


def hostile(**changes: Any) -> Report:
    changes = {
        "title": "<script>alert('title')</script>",
        "target": "<u>emotion</u>",
        "ids": np.array(["</script><script>alert(4)</script>"] * 60),
        "groups": np.array([f"</svg><script>alert({n % 9})</script>" for n in range(60)]),
        "warnings": ["<b>The clips were split at random.</b>"],
        "failures": [{"id": "<i>x</i>", "file": "a.wav", "kind": "too_short", "reason": "0.01 s"}],
        "reproduce": {"command": "exhubert train '<script>'", "fingerprint": {"<b>": "</pre>"}},
        **changes,
    }
    return classification(HOSTILE, **changes)


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
                reproduce={},
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
    report = classification(
        ("cold", "hot"),
        clips=4,
        speakers=2,
        truth=np.array([0, 0, 0, 1]),
        prediction=np.array([0, 0, 1, 1]),
        metrics={"uar": Interval(value=5 / 6, low=0.5, high=1.0)},
    )
    html = write_report(tmp_path, report).read_text(encoding="utf-8")
    cells = "".join(html.split()).replace('<tdclass="number">', "|").replace("</td>", "")
    assert '"wrap">cold|3|0.667|1.000<' in cells  # two of three; both said "cold" were
    assert '"wrap">hot|1|1.000|0.500<' in cells
    assert "hot(1)" in cells


def test_group_scores_are_each_groups_own() -> None:
    report = classification(
        ("cold", "hot"),
        clips=4,
        groups=np.array(["a", "a", "b", "b"]),
        truth=np.array([0, 1, 0, 0]),
        prediction=np.array([0, 0, 0, 1]),
        metrics={},
    )
    assert [(g.name, g.clips, g.score) for g in group_scores(report)] == [
        ("a", 2, 0.5),
        ("b", 2, 0.5),
    ]
    single = regression(clips=9, speakers=9)
    assert all(np.isnan(group.score) for group in group_scores(single))


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
    page = Page(write_report(tmp_path, classification(comparison=found)))
    assert words in page.text
    assert ("chance." in page.text) == (low < 0)
    assert read_json(tmp_path)["comparison"]["difference"]["low"] == low


@pytest.mark.parametrize(("speakers", "drawn"), [(9, "whole groups"), (1, "clips"), (60, "clips")])
def test_page_says_what_the_intervals_were_drawn_over(
    tmp_path: Path, speakers: int, drawn: str
) -> None:
    page = Page(write_report(tmp_path, regression(speakers=speakers)))
    assert f"a bootstrap that draws {drawn}" in page.text
