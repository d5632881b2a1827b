"""Writes the demo's clips: short mp4 films in which a class is a pair of what is seen and what is heard.

A coloured shape drifts over a noisy background while something sounds. Four shapes and four sounds make sixteen
classes, so that a model that only sees, or only hears, can get one clip in four right and no more. Position, speed,
size, tint, background, pitch, loudness and noise differ from clip to clip.

    python demo/make_clips.py --output=clips --train_per_class=20 --test_per_class=8
"""

import argparse
import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator

import film_files
import numpy as np
from film_files import Tracks

# Raise it when the films change, so that older ones are written anew.
VERSION = 1
SECONDS = 2.4
FRAME_RATE_HZ = 25
WIDTH, HEIGHT = 160, 120
SOUND_RATE_HZ = 44_100


@dataclasses.dataclass(frozen=True)
class Film:
    """One clip to write: where, what is in it, and the seed of everything that varies."""

    split: str
    sight: str
    sound: str
    number: int
    seed: int

    @property
    def label(self) -> str:
        """The class."""
        return f"{self.sight}+{self.sound}"

    @property
    def id(self) -> str:
        """Unique in the set; also the file's name."""
        return f"{self.split}-{self.sight}-{self.sound}-{self.number:03d}"

    @property
    def path(self) -> str:
        """Relative to the folder of the set."""
        return f"{self.split}/{self.id}.mp4"

    def random(self, part: str) -> np.random.Generator:
        """The source of what varies in one part of this film."""
        return np.random.default_rng([self.seed, *f"{part} {self.id}".encode()])


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x**2 + y**2 < 1


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(abs(x), abs(y)) < 0.85


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (y < 0.8) & (2 * abs(x) < y + 1)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1)


# Colour, and whether a point is inside; x and y are in units of the shape's size, from its centre, y downwards.
SIGHTS: dict[str, tuple[tuple[int, int, int], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "red-circle": ((220, 50, 45), _circle),
    "green-square": ((50, 180, 70), _square),
    "blue-triangle": ((50, 90, 225), _triangle),
    "yellow-cross": ((230, 200, 50), _cross),
}


def _beeps(t: np.ndarray, random: np.random.Generator) -> np.ndarray:
    pulses = (t * random.uniform(3, 4) + random.random()) % 1 < 0.5
    return np.sin(2 * np.pi * random.uniform(700, 1000) * t) * pulses


def _chirp(t: np.ndarray, random: np.random.Generator) -> np.ndarray:
    period = random.uniform(0.6, 0.9)
    into_sweep = (t + random.uniform(0, period)) % period
    return np.sin(2 * np.pi * (random.uniform(300, 400) * into_sweep + random.uniform(1800, 2400) * into_sweep**2))


def _hiss(t: np.ndarray, random: np.random.Generator) -> np.ndarray:
    swell = 0.6 + 0.4 * np.sin(2 * np.pi * (random.uniform(0.5, 1.5) * t + random.random()))
    return 0.5 * random.standard_normal(t.shape) * swell


def _hum(t: np.ndarray, random: np.random.Generator) -> np.ndarray:
    pitch_hz = random.uniform(100, 140)
    overtones = np.arange(1, 6)[:, None]
    phases = random.random((5, 1))
    return (np.sin(2 * np.pi * (overtones * pitch_hz * t + phases)) / overtones).sum(axis=0) / 2


SOUNDS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "beeps": _beeps,
    "chirp": _chirp,
    "hiss": _hiss,
    "hum": _hum,
}


def films(train_per_class: int, test_per_class: int, seed: int) -> Iterator[Film]:
    """Every film of the set, class by class."""
    for split, count in (("train", train_per_class), ("test", test_per_class)):
        for sight, sound, number in itertools.product(SIGHTS, SOUNDS, range(count)):
            yield Film(split, sight, sound, number, seed)


def draw_frames(film: Film) -> np.ndarray:
    """The pictures, uint8 of shape (frames, height, width, 3)."""
    random = film.random("picture")
    colour, is_inside = SIGHTS[film.sight]
    seconds = np.arange(round(SECONDS * FRAME_RATE_HZ)) / FRAME_RATE_HZ
    size = random.uniform(18, 30)
    x = _bounce(seconds, size, WIDTH - size, random)[:, None, None]
    y = _bounce(seconds, size, HEIGHT - size, random)[:, None, None]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = is_inside((columns - x) / size, (rows - y) / size)

    slope = random.uniform(-40, 40, 2)
    background = random.uniform(60, 160) + slope[0] * (columns / WIDTH - 0.5) + slope[1] * (rows / HEIGHT - 0.5)
    grain = random.normal(0, 6, (HEIGHT, WIDTH, 1))
    tint = np.array(colour) + random.uniform(-20, 20, 3)
    return np.where(inside[..., None], _to_pixels(tint + grain), _to_pixels(background[..., None] + grain))


def _to_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _bounce(seconds: np.ndarray, low: float, high: float, random: np.random.Generator) -> np.ndarray:
    """A coordinate that moves steadily and turns back at both ends."""
    way = random.uniform(0, 2) + random.uniform(0.2, 0.6) * random.choice([-1, 1]) * seconds
    return low + (high - low) * abs(way % 2 - 1)


def make_sound(film: Film) -> np.ndarray:
    """The sound track, int16, mono."""
    random = film.random("sound")
    t = np.arange(round(SECONDS * SOUND_RATE_HZ)) / SOUND_RATE_HZ
    sound = random.uniform(0.15, 0.5) * SOUNDS[film.sound](t, random)
    noise = random.uniform(0.001, 0.01) * random.standard_normal(t.shape)
    return (np.clip(sound + noise, -1, 1) * 32767).astype(np.int16)


def tracks(film: Film) -> Tracks:
    """What is seen and heard in a film."""
    return Tracks(
        frames=draw_frames(film),
        frame_rate_hz=FRAME_RATE_HZ,
        sound=make_sound(film),
        sound_rate_hz=SOUND_RATE_HZ,
        sound_bits="64k",
    )


def write_set(folder: pathlib.Path, train_per_class: int, test_per_class: int, seed: int) -> int:
    """Writes the films that are not there yet, and the CSV; returns how many were written."""
    wanted = list(films(train_per_class, test_per_class, seed))
    recipe = {"version": VERSION, "seed": seed}
    return film_files.write_set(folder, wanted, seconds=SECONDS, recipe=recipe, tracks=tracks)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder for the films and clips.csv")
    parser.add_argument("--train_per_class", type=int, default=20)
    parser.add_argument("--test_per_class", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    written = write_set(args.output, args.train_per_class, args.test_per_class, args.seed)
    print(f"{written} films written; {args.output / 'clips.csv'} lists the whole set.")


if __name__ == "__main__":
    main()
