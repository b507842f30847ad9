"""A small corpus of expressive, speech-like audio, made from a seed: no download, no licence.

The voice is a harmonic glottal source with a spectral tilt, breath and consonant noise, sent
through moving formants in a syllable rhythm. Each speaker has a pitch, a vocal tract
length, a pace and a liveliness; an emotion moves pitch, melody, tempo, energy, tilt and
breath from there, as acted speech does, and every take scatters around it.
"""

from __future__ import annotations

import csv
import io
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import butter, sosfilt

from .errors import UsageError
from .files import publish
from .spec import SAMPLE_RATE

_STEP = 80  # samples between control points: 5 ms, shorter than any articulation
_NYQUIST_MARGIN = 7200.0  # Hz; harmonics above would alias once the pitch moves

# Formants in Hz of an adult male tract; others scale them. The upper ones hardly depend on the
# vowel, but without them the spectrum above 4 kHz would be empty.
_UPPER = (4500, 5500)
_VOWELS = {
    "a": (750, 1200, 2500, 3500, *_UPPER),
    "e": (480, 1850, 2500, 3500, *_UPPER),
    "i": (290, 2250, 3000, 3600, *_UPPER),
    "o": (470, 850, 2450, 3400, *_UPPER),
    "u": (310, 800, 2300, 3300, *_UPPER),
}
_BANDWIDTHS = np.array([70.0, 90.0, 140.0, 200.0, 250.0, 300.0])  # Hz
# Share of the syllable, loudness of the noise, and whether the voice goes on.
_CONSONANTS = {"s": (0.40, 0.12, 0.0), "t": (0.25, 0.20, 0.0), "z": (0.35, 0.06, 0.4),
               "m": (0.30, 0.00, 0.5), "": (0.05, 0.00, 1.0)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an emotion differs from neutral speech of the same speaker."""

    pitch: float = 0.0  # semitones
    swing: float = 0.0  # semitones of melody within the sentence
    tempo: float = 0.0  # octaves: 1 is twice as fast
    energy: float = 0.0  # dB
    tilt: float = 0.0  # dB per octave; positive is a brighter, pressed voice
    breath: float = 0.0  # dB
    smile: float = 0.0  # octaves that the formants rise: spread lips shorten the tract


EMOTIONS = {
    "anger": Style(pitch=3.0, swing=2.0, tempo=0.30, energy=7.0, tilt=5.0, breath=-3.0),
    "happiness": Style(
        pitch=5.5, swing=4.5, tempo=0.15, energy=3.0, tilt=2.0, breath=3.0, smile=0.20
    ),
    "neutral": Style(),
    "sadness": Style(pitch=-1.5, swing=-1.5, tempo=-0.40, energy=-6.0, tilt=-3.0, breath=6.0),
}
_SCATTER = Style(pitch=1.0, swing=0.7, tempo=0.06, energy=1.5, tilt=0.6, breath=2.0, smile=0.02)


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One invented speaker."""

    pitch: float  # Hz, neutral
    tract: float  # scale of the formants; above 1 is a shorter tract
    pace: float  # syllables per second, neutral
    tilt: float  # dB per octave, neutral
    liveliness: float  # how far emotions carry this speaker from neutral; 1 is average


def draw_voice(index: int, seed: int = 0) -> Voice:
    """Voice number ``index``; low and high voices alternate."""
    generator = np.random.default_rng([seed, 1, index])
    high = index % 2
    return Voice(
        pitch=(205.0 if high else 115.0) * 2 ** generator.normal(0, 0.12),
        tract=(1.15 if high else 1.0) * generator.uniform(0.95, 1.05),
        pace=generator.uniform(4.3, 5.3),
        tilt=generator.normal(-9.0, 0.6),
        liveliness=generator.uniform(0.75, 1.2),
    )


def synthesise(voice: Voice, style: Style, *, sentence: int, seed: int = 0) -> np.ndarray:
    """Speak one nonsense sentence.

    Parameters
    ----------
    voice, style
        Who speaks, and how it departs from neutral.
    sentence
        Which syllables: equal numbers say the same, whoever speaks.
    seed
        Varies melody, timing and noise between takes.

    Returns
    -------
    (N,) float32 at 16 kHz, within -1 .. 1.
    """
    generator = np.random.default_rng([seed, 2, sentence])
    pitch, voicing, noise, formants = _articulate(voice, style, sentence, generator)
    samples = len(pitch) * _STEP
    voicing, noise = _interpolate(voicing, samples), _interpolate(noise, samples)
    source = voicing * _glottis(_interpolate(pitch, samples), voice.tilt + style.tilt)
    breath = 10 ** ((style.breath - 32) / 20) * generator.normal(size=samples)
    speech = _tract(source + voicing * breath, formants)
    hiss = sosfilt(
        butter(2, (3500, 7000), "bandpass", fs=SAMPLE_RATE, output="sos"),
        generator.normal(size=samples),
    )
    speech /= np.sqrt(np.mean(speech**2))
    level = 10 ** ((style.energy - 26) / 20)  # -26 dBFS, the usual level of speech files
    room = 0.0006 * generator.normal(size=samples)
    return np.clip(level * (speech + 4 * noise * hiss) + room, -1, 1).astype(np.float32)


def write_corpus(
    directory: str | Path, *, speakers: int = 10, sentences: int = 5, seed: int = 0
) -> Path:
    """Write one WAV per speaker, emotion and sentence, and ``manifest.csv`` beside them.

    Returns
    -------
    Path
        The manifest, with the columns file, id, speaker and emotion.
    """
    if speakers < 1 or sentences < 1:
        raise UsageError(f"{speakers} speakers and {sentences} sentences", expected="at least one")
    directory = Path(directory)
    rows = []
    for index in range(speakers):
        speaker = f"speaker{index + 1:02d}"
        voice = draw_voice(index, seed)
        (directory / speaker).mkdir(parents=True, exist_ok=True)
        for number, (emotion, style) in enumerate(EMOTIONS.items()):
            for sentence in range(sentences):
                file = f"{speaker}/{emotion}_{sentence + 1:02d}.wav"
                take = int(np.random.SeedSequence([seed, index, number]).generate_state(1)[0])
                acted = _act(style, voice.liveliness, np.random.default_rng([take, 3, sentence]))
                waveform = synthesise(voice, acted, sentence=sentence, seed=take)
                # In memory: what a disk refuses has a name in Python's own errors only.
                content = io.BytesIO()
                soundfile.write(content, waveform, SAMPLE_RATE, format="WAV", subtype="PCM_16")
                (directory / file).write_bytes(content.getvalue())
                rows.append((file, file.removesuffix(".wav"), speaker, emotion))
    table = io.StringIO(newline="")
    csv.writer(table).writerows([("file", "id", "speaker", "emotion"), *rows])
    manifest = directory / "manifest.csv"
    publish(table.getvalue().encode(), manifest, replace=True)
    return manifest


def _act(style: Style, liveliness: float, generator: np.random.Generator) -> Style:
    """One take: the emotion as this speaker plays it, scattered as people are."""
    mean, spread = np.array(astuple(style)), np.array(astuple(_SCATTER))
    taken = liveliness * mean + spread * generator.normal(size=len(mean))
    names = [quality.name for quality in fields(Style)]
    return Style(**dict(zip(names, taken.tolist(), strict=True)))


def _articulate(
    voice: Voice, style: Style, sentence: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Control tracks every 5 ms: pitch (K,), voicing (K,), noise (K,) and formants (K, 6)."""
    words = np.random.default_rng([4, sentence])
    syllables = int(words.integers(9, 13))
    tract = voice.tract * 2**style.smile
    voicing, noise, formants, stress = [], [], [], []
    for _ in range(syllables):
        consonant = _CONSONANTS[words.choice(list(_CONSONANTS))]
        vowel = np.array(_VOWELS[words.choice(list(_VOWELS))]) * tract
        seconds = generator.lognormal(0, 0.12) / (voice.pace * 2**style.tempo)
        steps = max(int(seconds * SAMPLE_RATE / _STEP), 12)
        onset = int(steps * consonant[0])
        rise = np.sin(np.linspace(0.15, np.pi - 0.15, steps - onset)) ** 0.6
        voicing += [np.full(onset, consonant[2] * 0.5), rise]
        noise += [consonant[1] * np.hanning(onset + 2)[1:-1], np.zeros(steps - onset)]
        formants.append(np.tile(vowel, (steps, 1)))
        stress.append(np.full(steps, words.normal() + 0.5 * generator.normal()))
    track = _smooth(np.concatenate(stress), 31)
    semitones = style.pitch + (2.0 * 2 ** (style.swing / 3)) * track
    semitones += np.linspace(1.0, -2.5, len(track))  # pitch falls towards a sentence's end
    jitter = 0.15 * generator.normal(size=len(track))
    pitch = voice.pitch * 2 ** ((semitones + jitter) / 12)
    moving = np.apply_along_axis(_smooth, 0, np.concatenate(formants), 9)
    return (
        np.clip(pitch, 60, 600),
        _smooth(np.concatenate(voicing), 5),
        _smooth(np.concatenate(noise), 3),
        np.minimum(moving, _NYQUIST_MARGIN),
    )


def _glottis(pitch: np.ndarray, tilt: float) -> np.ndarray:
    """(N,) harmonics of a moving pitch, falling by ``tilt`` dB per octave."""
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    before, sine, twice_cosine = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
    wave = np.zeros_like(phase)
    for harmonic in range(1, int(_NYQUIST_MARGIN / pitch.min()) + 1):
        audible = harmonic * pitch < _NYQUIST_MARGIN
        wave += audible * sine * 10 ** (tilt * np.log2(harmonic) / 20)
        before, sine = sine, twice_cosine * sine - before  # the sine of the next multiple
    return wave


def _tract(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Send (N,) through a cascade of resonators that move every control point."""
    radius = np.exp(-np.pi * _BANDWIDTHS / SAMPLE_RATE)
    cosine = np.cos(2 * np.pi * formants / SAMPLE_RATE)
    sections = np.zeros((*formants.shape, 6))
    sections[..., 3] = 1.0
    sections[..., 4] = -2 * radius * cosine
    sections[..., 5] = radius**2
    sections[..., 0] = sections[..., 3:].sum(axis=-1)  # unit gain at 0 Hz
    state = np.zeros((formants.shape[1], 2))
    blocks = []
    for block, section in zip(source.reshape(-1, _STEP), sections, strict=True):
        filtered, state = sosfilt(section, block, zi=state)
        blocks.append(filtered)
    return np.concatenate(blocks)


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """Take a moving average of (K,) that keeps the length and the ends."""
    padded = np.pad(track, width // 2, mode="edge")
    return np.convolve(padded, np.ones(width) / width, mode="valid")


def _interpolate(track: np.ndarray, samples: int) -> np.ndarray:
    """Control points (K,) to (N,) samples."""
    return np.interp(np.arange(samples) / _STEP, np.arange(len(track)), track)
