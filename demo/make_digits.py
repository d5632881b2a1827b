"""Writes films of written and spoken digits: real pictures and real voices, on which a small model learns in minutes.

    python demo/make_digits.py --recordings=free-spoken-digit-dataset/recordings --output=digits
    mbt-data build --annotations=digits/ten/clips.csv --output=digits/ten/dataset
    mbt-data build --annotations=digits/sixteen/clips.csv --output=digits/sixteen/dataset

Two tasks. `ten`: what is seen and what is heard is the same digit, so each sense alone can name all. `sixteen`: one of
four digits is seen and one of four others heard, and both make the class; so one sense alone can name a clip in four.

The pictures are scikit-learn's (1,797, 8 x 8). The voices are files DIGIT_SPEAKER_NUMBER.wav, as the Free Spoken Digit
Dataset has them (github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0). Nothing in a test film is in a film to
train on: numbers below 5 are for tests, which is the data set's own split, and so is every fifth picture.
"""

import argparse
import dataclasses
import hashlib
import itertools
import pathlib
import re
import sys
import wave
from collections.abc import Iterator

import film_files
import numpy as np
from film_files import Tracks

# Raise it when the films change, so that older ones are written anew.
VERSION = 1
SECONDS = 1.5
FRAME_RATE_HZ = 5  # the picture stands; it trembles a little from frame to frame
SIDE = 64
SOUND_RATE_HZ = 8_000
TEST_NUMBERS = range(5)
DIGITS = tuple(map(str, range(10)))
SEEN, HEARD = DIGITS[:4], DIGITS[5:9]
_RECORDING = re.compile(r"([0-9])_[^_]+_([0-9]+)\.wav")


@dataclasses.dataclass(frozen=True)
class Film:
    """One film: what is seen and heard, its class, and its number, which seeds all that varies."""

    split: str
    seen: str
    heard: str
    label: str
    number: int

    @property
    def id(self) -> str:
        """Unique in its set; also the file's name."""
        return f"{self.split}-{self.number:05d}"

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"{self.split}/{self.id}.mp4"

    def random(self, part: str) -> np.random.Generator:
        """The source of what varies in one part of this film."""
        return np.random.default_rng([self.number, *f"{part} {self.id} {self.label}".encode()])


def films(task: str, split: str, count: int) -> Iterator[Film]:
    """The films of a split, the classes in turn."""
    ten = [(digit, digit, digit) for digit in DIGITS]
    sixteen = [(seen, heard, f"{seen}+{heard}") for seen, heard in itertools.product(SEEN, HEARD)]
    for number, (seen, heard, label) in zip(range(count), itertools.cycle(ten if task == "ten" else sixteen)):
        yield Film(split, seen, heard, label, number)


@dataclasses.dataclass(frozen=True)
class Material:
    """What films are made of, by split and digit.

    Attributes:
      pictures: (n, 8, 8), from 0 to 16.
      recordings: int16.
    """

    pictures: dict[tuple[str, str], np.ndarray]
    recordings: dict[tuple[str, str], list[np.ndarray]]

    @property
    def digest(self) -> str:
        """Another one for any other picture or recording."""
        found = hashlib.sha256()
        for key, voices in self.recordings.items():
            for values in (self.pictures[key], *voices):
                found.update(f"{key} {values.shape} ".encode() + values.tobytes())
        return found.hexdigest()


def read_material(folder: pathlib.Path) -> Material:
    """The pictures, and the recordings of a folder; ends with a line if there are none for some digit."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        sys.exit("the written digits are scikit-learn's: pip install scikit-learn")
    if not folder.is_dir():
        sys.exit(f"--recordings={folder}: no such folder")
    found = load_digits()
    is_test = np.arange(len(found.images)) % 5 == 0
    pictures = {
        (split, digit): found.images[(found.target == int(digit)) & (is_test == (split == "test"))]
        for split in ("train", "test")
        for digit in DIGITS
    }
    recordings: dict[tuple[str, str], list[np.ndarray]] = {key: [] for key in pictures}
    for path in sorted(folder.iterdir()):
        if name := _RECORDING.fullmatch(path.name):
            recordings["test" if int(name[2]) in TEST_NUMBERS else "train", name[1]].append(_read_wav(path))
    if missing := [key for key, values in recordings.items() if not values]:
        sys.exit(f"--recordings={folder}: no {missing[0][1]}_SPEAKER_NUMBER.wav of the {missing[0][0]} split")
    return Material(pictures, recordings)


def _read_wav(path: pathlib.Path) -> np.ndarray:
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
            data = file.readframes(file.getnframes())
            if len(data) < file.getnframes() * form[1] * form[2]:
                raise EOFError
    except (OSError, EOFError, wave.Error) as error:
        sys.exit(f"{path}: {str(error) or 'ends too early'}")
    if form != (SOUND_RATE_HZ, 1, 2) or not data:
        sys.exit(f"{path}: must be sound of 16 bits, mono, {SOUND_RATE_HZ} Hz")
    return np.frombuffer(data, "<i2")


def draw_frames(film: Film, material: Material) -> np.ndarray:
    """The pictures, uint8 of shape (frames, SIDE, SIDE, 3): a digit in some colours, somewhere near the middle."""
    from PIL import Image

    random, choices = film.random("picture"), material.pictures[film.split, film.seen]
    digit = Image.fromarray((choices[random.integers(len(choices))] / 16).astype(np.float32))
    size = int(random.integers(50, 61))
    ink = np.asarray(digit.resize((size, size), Image.Resampling.BICUBIC)).clip(0, 1)
    dark, bright = random.uniform(0, 90, 3), random.uniform(150, 255, 3)
    frames = []
    corner = (SIDE - size) // 2 + random.integers(-2, 3, 2)
    for _ in range(round(SECONDS * FRAME_RATE_HZ)):
        top, left = np.clip(corner + random.integers(-1, 2, 2), 0, SIDE - size)
        share = np.zeros((SIDE, SIDE, 1))
        share[top : top + size, left : left + size, 0] = ink
        picture = dark + share * (bright - dark) + random.normal(0, 8, (SIDE, SIDE, 1))
        frames.append(picture.clip(0, 255).astype(np.uint8))
    return np.stack(frames)


def make_sound(film: Film, material: Material) -> np.ndarray:
    """The sound track, int16, mono: a voice somewhere in it, and a little noise."""
    random, choices = film.random("sound"), material.recordings[film.split, film.heard]
    total = round(SECONDS * SOUND_RATE_HZ)
    voice = choices[random.integers(len(choices))][:total].astype(np.float64)
    voice *= random.uniform(0.3, 0.9) * 32767 / max(1.0, abs(voice).max())
    sound = random.normal(0, random.uniform(10, 100), total)
    start = random.integers(0, total - len(voice) + 1)
    sound[start : start + len(voice)] += voice
    return sound.clip(-32768, 32767).astype(np.int16)


def write_set(folder: pathlib.Path, task: str, counts: dict[str, int], material: Material) -> int:
    """Writes the films of a task that are not there yet, and its CSV; returns how many were written."""

    def tracks(film: Film) -> Tracks:
        return Tracks(
            frames=draw_frames(film, material),
            frame_rate_hz=FRAME_RATE_HZ,
            sound=make_sound(film, material),
            sound_rate_hz=SOUND_RATE_HZ,
            sound_bits="48k",
        )

    wanted = [film for split, count in counts.items() for film in films(task, split, count)]
    recipe = {"version": VERSION, "material": material.digest}
    return film_files.write_set(folder, wanted, seconds=SECONDS, recipe=recipe, tracks=tracks)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a positive number")
    return int(text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=pathlib.Path, required=True, help="folder of DIGIT_SPEAKER_NUMBER.wav")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for both sets")
    parser.add_argument("--train", type=_count, default=4000, help="films to train on, of each set")
    parser.add_argument("--test", type=_count, default=1000, help="films to test on, of each set")
    args = parser.parse_args()
    material = read_material(args.recordings)
    for task in ("ten", "sixteen"):
        folder = args.output / task
        written = write_set(folder, task, {"train": args.train, "test": args.test}, material)
        print(f"{written} films written; {folder / 'clips.csv'} lists the whole set.")


if __name__ == "__main__":
    main()
