"""Folders as the releases of the corpora have them, in small: names by the rules, 0.1 s of noise.

Each builder also lays down what is odd in the real release, so that a reader which overlooks it
fails. No name list of a corpus is copied; the names are made by its rule.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import soundfile


@cache
def noise(seed: int, count: int = 1600) -> bytes:
    """A recording of 0.1 s, or of as many samples; another one for each seed."""
    stream = io.BytesIO()
    samples = np.random.default_rng(seed).normal(0, 0.1, count)
    soundfile.write(stream, samples, 16_000, format="WAV")
    return stream.getvalue()


class Folder:
    """A corpus' root, with short words to fill it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def wav(self, *names: str, seed: int | None = None) -> None:
        """Recordings that differ, unless a seed makes them equal."""
        for name in names:
            self.count += 1
            self.write(name, noise(self.count if seed is None else seed))

    def write(self, name: str, content: bytes | str) -> None:
        """Any other file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def clutter(self) -> None:
        """What lies in every folder that has been on other machines."""
        self.write("README.txt", "about the corpus")
        self.write(".DS_Store", "x")
        self.write("__MACOSX/wav/._any.wav", "x")
        self.write("._any.wav", "x")


def emodb(folder: Folder) -> None:
    """Ten speakers, two sentences; one name as in 2.0, its laryngogram, and label text files."""
    for speaker in ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16"):
        folder.wav(
            *(
                f"wav/{speaker}{sentence}{letter}a.wav"
                for sentence in ("a01", "b10")
                for letter in "WLEAFTN"
            )
        )
    folder.wav("wav/03a02Wbxx.wav", "laryngo/03a01Wa.wav")
    folder.write("erkennung.txt", "x")
    folder.write("lablaut/03a01Wa.lablaut", "x")


def ravdess(folder: Folder) -> None:
    """Actors, a song, and the doubled folder of one well-known copy."""
    for actor in range(1, 25):
        for emotion in range(1, 9):
            for intensity in (1, 2) if emotion > 1 else (1,):
                name = f"03-01-{emotion:02d}-{intensity:02d}-01-01-{actor:02d}.wav"
                folder.wav(f"Actor_{actor:02d}/{name}", seed=100 * actor + 10 * emotion + intensity)
    again = "03-01-05-01-01-01-12.wav"
    folder.wav(f"audio_speech_actors_01-24/Actor_12/{again}", seed=100 * 12 + 10 * 5 + 1)
    folder.wav("Actor_01/03-02-04-01-01-01-01.wav")


def crema_d(folder: Folder) -> None:
    """Actors of all three parts, the name with one X, the clip without a signal, the mp3s."""
    for actor in (1001, 1002, 1003, 1040, 1049, 1053, 1048, 1069, 1076):
        for emotion in ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD"):
            folder.wav(f"AudioWAV/{actor}_DFA_{emotion}_XX.wav")
        folder.wav(f"AudioWAV/{actor}_IEO_ANG_HI.wav", f"AudioMP3/{actor}_IEO_ANG_HI.mp3")
    folder.wav("AudioWAV/1040_ITH_SAD_X.wav")
    folder.write("AudioWAV/1076_MTI_SAD_XX.wav", b"")
    folder.write("VideoDemographics.csv", "ActorID,Age,Sex\n1001,51,Male\n1002,21,Female\n")


def iemocap(folder: Folder) -> None:
    """Five sessions; each dialog has turns of both actors, whoever wore the markers."""
    labels = ["ang", "hap", "exc", "sad", "neu", "fru", "xxx", "oth"]
    for session in range(1, 6):
        for dialog in ("F_impro01", "M_script01_1b"):
            name = f"Ses0{session}{dialog}"
            lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n"]
            for number, label in enumerate(labels):
                for who in "FM":
                    turn = f"{name}_{who}{number:03d}"
                    folder.wav(f"Session{session}/sentences/wav/{name}/{turn}.wav")
                    rated = "[2.5000, 3.0000, 3.5000]"
                    lines.append(f"[{number}.1000 - {number}.9000]\t{turn}\t{label}\t{rated}\n")
                    lines.append("C-E1:\tNeutral;\t()\n")
            labelled = f"Session{session}/dialog/EmoEvaluation"
            folder.write(f"{labelled}/{name}.txt", "".join(lines))
            folder.write(f"{labelled}/Categorical/{name}_e1_cat.txt", f"{name}_F000 :Sadness; ()\n")
            folder.wav(f"Session{session}/dialog/wav/{name}.wav")


def meld(folder: Folder) -> None:
    """Equal names in all three parts, the broken, the missing and the superfluous clips."""
    emotions = ["neutral", "joy", "surprise", "anger", "sadness", "disgust", "fear"]
    speakers = ["Rachel", "Ross", "Joey", "Monica", "The Doctor"]
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID\n"
    places = {
        "train": "train/train_splits",
        "dev": "dev_splits_complete",
        "test": "output_repeated_splits_test",
    }
    for split, place in places.items():
        lines = [header]
        for number, emotion in enumerate(emotions):
            for dialog in (0, 1):
                folder.wav(f"{place}/dia{dialog}_utt{number}.wav")
                words = '"Well, you\u2019re here"' if number else "So\u2026"
                lines.append(
                    f"{number},{words},{speakers[number % 5]},{emotion},neutral,{dialog},{number}\n"
                )
        if split == "train":
            lines.append("9,Broken,Ross,neutral,neutral,125,3\n")
            folder.write(f"{place}/dia125_utt3.wav", b"")
        if split == "dev":
            lines.append("9,Gone,Ross,neutral,neutral,110,7\n")
        table = f"train/{split}_sent_emo.csv" if split == "train" else f"{split}_sent_emo.csv"
        folder.write(table, "".join(lines).encode("cp1252"))
    folder.wav("dev_splits_complete/dia66_utt9.wav")
    folder.wav("output_repeated_splits_test/final_videos_testdia0_utt0.wav")
    folder.write("output_repeated_splits_test/._dia0_utt0.wav", "x")


def esd(folder: Folder) -> None:
    """Twenty speakers; the first in the older layout with folders for parts."""
    starts = {"Neutral": 1, "Angry": 351, "Happy": 701, "Sad": 1051, "Surprise": 1401}
    for speaker in range(1, 21):
        name = f"{speaker:04d}"
        for emotion, start in starts.items():
            part = "train/" if speaker == 1 else ""
            folder.wav(f"{name}/{emotion}/{part}{name}_{start:06d}.wav")
            folder.wav(f"{name}/{emotion}/{part}{name}_{start + 349:06d}.wav")
        folder.write(f"{name}/{name}.txt", "0001_000001\ttext\t\u4e2d\u7acb\n".encode("utf-16"))


def tess(folder: Folder) -> None:
    """Irregular folders, the speaker spelled OA, and a doubled inner folder."""
    emotions = ["angry", "disgust", "fear", "happy", "neutral", "ps", "sad"]
    for speaker in ("OAF", "YAF"):
        for number, emotion in enumerate(emotions):
            titled = f"{speaker}_{emotion.title() if number % 2 else emotion}"
            for place, word in enumerate(("back", "bar")):
                seed = 1000 * len(titled) + 10 * number + place
                folder.wav(f"{titled}/{speaker}_{word}_{emotion}.wav", seed=seed)
    folder.wav("OAF_neutral/OA_bite_neutral.wav")
    folder.wav("TESS/OAF_Sad/OAF_dog_sad.wav", "OAF_sad/OAF_dog_sad.wav", seed=7)


def savee(folder: Folder) -> None:
    """Two speakers as released, two as in flat copies."""
    names = ["a01", "d01", "f01", "h01", "n01", "n02", "sa01", "su01"]
    for speaker in ("DC", "JE"):
        folder.wav(*(f"AudioData/{speaker}/{name}.wav" for name in names))
    for speaker in ("JK", "KL"):
        folder.wav(*(f"ALL/{speaker}_{name}.wav" for name in names))
    folder.write("AudioData/Info.txt", "x")


def emovo(folder: Folder) -> None:
    """Six speakers, two sentences, seven emotions."""
    for speaker in ("f1", "f2", "f3", "m1", "m2", "m3"):
        for emotion in ("dis", "gio", "neu", "pau", "rab", "sor", "tri"):
            folder.wav(
                *(f"{speaker}/{emotion}-{speaker}-{sentence}.wav" for sentence in ("b1", "l4"))
            )


def subesco(folder: Folder) -> None:
    """Speakers of all parts, equal numbers in both genders, and the name with a bracket."""
    emotions = ["ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL", "SAD", "SURPRISE"]
    actors = ["F_01_OISHI", "F_02_MONIKA", "F_03_ADRITA", "M_01_ILIAS", "M_02_DURANTO", "M_03_ANON"]
    for actor in actors:
        for emotion in emotions:
            folder.wav(f"SUBESCO/{actor}_S_1_{emotion}_1.wav")
    folder.wav("SUBESCO/F_02_MONIKA_S_2_SURPRISE_3].wav")


def shemo(folder: Folder) -> None:
    """F as gender and F as fear; numbers of two and three digits."""
    for speaker in ("F01", "F02", "F03", "M01", "M02", "M03", "M04"):
        place = "female" if speaker[0] == "F" else "male"
        folder.wav(*(f"{place}/{speaker}{letter}01.wav" for letter in "ASHWFN"))
    folder.wav("male/M01A101.wav")
    folder.write("transcript/final text/F01A01.ort", "x")


def enterface(folder: Folder) -> None:
    """Videos, the subject that was never cut, and names that contradict their folders."""
    codes = {
        "anger": "an",
        "disgust": "di",
        "fear": "fe",
        "happiness": "ha",
        "sadness": "sa",
        "surprise": "su",
    }
    for subject in (1, 2, 3, 11, 16, 42):
        for emotion, code in codes.items():
            for sentence in (1, 2):
                said = {3: f"s_3_{code}_{sentence}", 11: f"s12_{code}_{sentence}"}
                name = said.get(subject, f"s{subject}_{code}_{sentence}")
                if (subject, code, sentence) == (16, "su", 2):
                    name = "s16_su_3avi"
                folder.wav(f"subject {subject}/{emotion}/sentence {sentence}/{name}.avi")
    folder.wav(*(f"subject 6/{emotion}/s6_{code}.avi" for emotion, code in codes.items()))
    folder.wav("subject 1/anger/sentence 1/s1_an_1.wav")  # extracted beside its video
    folder.write("subject 1/Thumbs.db", "x")


def mesd(folder: Folder) -> None:
    """Voices of women, men and children; a word of two, one with an accent in two parts."""
    words = ["abajo", "hasta luego", "por_favor", "adio\u0301s"]
    for emotion in ("Anger", "Disgust", "Fear", "Happiness", "Neutral", "Sadness"):
        for voice in "FMC":
            folder.wav(
                *(
                    f"Mexican Emotional Speech Database (MESD)/{emotion}_{voice}_A_{word}.wav"
                    for word in words
                )
            )


def urdu(folder: Folder) -> None:
    """Speakers of very unequal share."""
    places = {"A": "Angry", "H": "Happy", "N": "Neutral", "S": "Sad"}
    for letter, place in places.items():
        folder.wav(*(f"{place}/SM5_F{number}_{letter}{number:02d}.wav" for number in range(1, 9)))
        for speaker in ("SM1", "SM2", "SM27", "SF1", "SF2", "SF11"):
            folder.wav(f"{place}/{speaker}_F2_{letter}01.wav")


def casia(folder: Folder) -> None:
    """Names repeat in all folders."""
    for speaker in ("liuchanhg", "wangzhe", "zhaoquanyin", "zhaozuoxiang"):
        for emotion in ("angry", "fear", "happy", "neutral", "sad", "surprise"):
            folder.wav(f"{speaker}/{emotion}/201.wav", f"{speaker}/{emotion}/250.wav")


def aibo(folder: Folder) -> None:
    """Two schools whose children have equal numbers, and labels of both tasks."""
    five, two = [], []
    for school in ("Ohm", "Mont"):
        for child in ("01", "02", "03"):
            for number, letter in enumerate("AENPR"):
                name = f"{school}_{child}_{number:03d}_00"
                folder.wav(f"wav/{name}.wav")
                five.append(f"{name} {letter} 0.75\n")
                two.append(f"{name} {'NEG' if letter in 'AE' else 'IDL'} 0.75\n")
    place = "labels/IS2009EmotionChallenge"
    folder.write(f"{place}/chunk_labels_5cl_corpus.txt", "".join(five))
    folder.write(f"{place}/chunk_labels_2cl_corpus.txt", "".join(two))


def demos(folder: Folder) -> None:
    """Prototypical and other clips, neutral ones without that mark."""
    for number, speaker in enumerate(("01", "02", "34", "36", "58", "69")):
        gender = "fm"[number % 2]
        for emotion in ("rab", "tri", "gio", "pau", "dis", "col", "sor"):
            folder.wav(f"DEMOS/NP_{gender}_{speaker}_{emotion}01a.wav")
        folder.wav(f"DEMOS/PR_{gender}_{speaker}_rab02b.wav", f"NEU/{gender}_{speaker}_neu01a.wav")


def emofilm(folder: Folder) -> None:
    """Scenes in three languages, and the legend with an unknown speaker in each."""
    rows = {"f": [["file", "speaker", "film"]], "m": [["file", "speaker", "film"]]}
    for gender in "fm":
        for number, emotion in enumerate(("ans", "dis", "gio", "rab", "tri")):
            for scene in (2 * number, 2 * number + 1):
                for language in ("it", "es", "en"):
                    name = f"{gender}_{emotion}{scene:03d}a{language}"
                    folder.wav(f"wav_corpus/{name}.wav")
                    speaker = f"Actor {gender}{scene} {language}" if scene else "????"
                    rows[gender].append([name, speaker, f"Film  {gender}{scene}"])
    folder.write("f_m_corpus_it_es_en_legend.xlsx", workbook([rows["f"], rows["m"]]))


def smartkom(folder: Folder) -> None:
    """Sessions with turns and user states that do not begin together, and two microphones."""
    states = [
        "Neutral",
        '"Freude/Erfolg"',
        "\u00c4rger/Mi\u00dferfolg",
        "Ratlosigkeit",
        "Restklasse",
    ]
    for number, speaker in enumerate(("AAA", "AAB", "AAC", "AAD", "TAE", "TAF")):
        session = f"w{number:03d}_pk"
        lines = ["SAM: 16000\n"]
        lines += [f"TRN: {1600 * turn} 1500 {turn} {session}_{turn}\n" for turn in range(5)]
        lines += [
            f"USH: {1600 * place + 20} 1580 {state} {state} x\n"
            for place, state in enumerate(states)
        ]
        folder.write(
            f"SK-Public/{session}/{session}_{speaker}.par", "".join(lines).encode("cp1252")
        )
        folder.write(f"SK-Public/{session}/{session}_SMA.par", "TRN: 0 10 0 gesture\n")
        for seed, microphone in enumerate("dh"):
            folder.write(f"SK-Public/{session}/{session}{microphone}.wav", noise(seed, 8000))


BUILDERS: dict[str, Callable[[Folder], None]] = {
    "emodb": emodb,
    "ravdess": ravdess,
    "crema-d": crema_d,
    "iemocap": iemocap,
    "meld": meld,
    "esd": esd,
    "tess": tess,
    "savee": savee,
    "emovo": emovo,
    "subesco": subesco,
    "shemo": shemo,
    "enterface": enterface,
    "mesd": mesd,
    "urdu": urdu,
    "casia": casia,
    "aibo": aibo,
    "demos": demos,
    "emofilm": emofilm,
    "smartkom": smartkom,
}


def build(name: str, root: Path) -> Folder:
    """A corpus' folder with all that is odd in it."""
    folder = Folder(root)
    BUILDERS[name](folder)
    folder.clutter()
    return folder


def workbook(sheets: list[list[list[str]]]) -> bytes:
    """An .xlsx with these cells; the first sheet's texts are shared ones, the others' inline."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared: list[str] = []
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, rows in enumerate(sheets):
            lines = []
            for row in rows:
                cells = []
                for column, text in zip("ABC", row, strict=True):
                    if number == 0:
                        shared.append(f"<si><t>{text}</t></si>")
                        cells.append(f'<c r="{column}1" t="s"><v>{len(shared) - 1}</v></c>')
                    else:
                        cells.append(f'<c r="{column}1" t="inlineStr"><is><t>{text}</t></is></c>')
                lines.append(f"<row>{''.join(cells)}</row>")
            sheet = f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>"
            archive.writestr(f"xl/worksheets/sheet{number + 1}.xml", sheet)
        archive.writestr("xl/sharedStrings.xml", f"<sst {space}>{''.join(shared)}</sst>")
    return stream.getvalue()
