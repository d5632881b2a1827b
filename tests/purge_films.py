"""Films whose every frame and tenth of a second can be read off, and a reader of all that lies below a folder."""

import subprocess
from pathlib import Path

import numpy as np

RATE = 25
SIDE = 64
HZ = 16000
_CELLS = 4
_TONES = 21
_LOW, _HIGH = np.geomspace(300, 1500, _TONES), np.geomspace(1900, 6000, _TONES)


def make(program: str, path: Path, *options: str, first: int = 0, seconds: int = 14) -> Path:
    """Writes a film; frame n shows n in 4 x 4 cells, and in tenth k of a second two tones sound that tell k.

    The first frame has the number 25 `first`, and the first tenth 10 `first`.
    """
    frames, sound = path.with_suffix(".gray"), path.with_suffix(".pcm")
    frames.write_bytes(b"".join(_picture(number).tobytes() for number in range(RATE * first, RATE * (first + seconds))))
    sound.write_bytes(np.concatenate([_tones(tenth) for tenth in range(10 * first, 10 * (first + seconds))]).tobytes())
    raw = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{SIDE}x{SIDE}", "-r", str(RATE), "-i", str(frames)]
    words = [program, "-v", "error", "-y", *raw, "-f", "s16le", "-ar", str(HZ), "-ac", "1", "-i", str(sound)]
    subprocess.run([*words, "-pix_fmt", "yuv420p", *options, str(path)], check=True, stdin=subprocess.DEVNULL)
    frames.unlink()
    sound.unlink()
    return path


def _picture(number: int) -> np.ndarray:
    check = (number * 2654435761 >> 7) & 31
    bits = np.array([(number | check << 11) >> bit & 1 for bit in range(_CELLS**2)], np.uint8)
    return np.kron(bits.reshape(_CELLS, _CELLS) * 255, np.ones((SIDE // _CELLS,) * 2, np.uint8))


def _tones(tenth: int) -> np.ndarray:
    at = (np.arange(HZ // 10) + tenth * HZ // 10) / HZ
    both = sum(np.sin(2 * np.pi * hz * at) for hz in (_LOW[tenth % _TONES], _HIGH[tenth // _TONES]))
    return (both * 8000).astype("<i2")


def numbers(program: str, path: Path, *options: str) -> set[int]:
    """The numbers of the frames that a film, or a file of JPEGs, shows, those that players hide too."""
    words = [program, "-v", "quiet", *options, "-i", str(path), "-map", "0:v", "-fps_mode", "passthrough"]
    words += ["-vf", f"scale={SIDE}:{SIDE}", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    data = np.frombuffer(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout, np.uint8)
    cell = SIDE // _CELLS
    frames = data[: len(data) // SIDE**2 * SIDE**2].reshape(-1, _CELLS, cell, _CELLS, cell)
    bits = frames[:, :, 4:12, :, 4:12].mean(axis=(2, 4)) > 127
    codes = (bits.reshape(-1, _CELLS**2) << np.arange(_CELLS**2)).sum(axis=1).tolist()
    return {code & 2047 for code in codes if code >> 11 == ((code & 2047) * 2654435761 >> 7) & 31}


def tenths(program: str, path: Path, *options: str) -> set[int]:
    """The tenths of a second that are heard in a film, wherever in it they begin."""
    words = [program, "-v", "quiet", *options, "-i", str(path), "-map", "0:a"]
    words += ["-f", "s16le", "-ar", str(HZ), "-ac", "1", "-"]
    data = np.frombuffer(subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout, "<i2").astype(float)
    found = set()
    if len(data) >= HZ // 10:
        windows = np.lib.stride_tricks.sliding_window_view(data, HZ // 10)[:: HZ // 50]
        window = np.hanning(HZ // 10)
        times = np.arange(HZ // 10) / HZ
        bases = np.exp(-2j * np.pi * np.concatenate([_LOW, _HIGH])[:, None] * times) * window
        strength = np.abs(windows @ bases.T) / (8000 * window.sum() / 2)
        for low, high in zip(strength[:, :_TONES], strength[:, _TONES:], strict=True):
            if low.max() > 0.85 and high.max() > 0.85:
                found.add(int(high.argmax()) * _TONES + int(low.argmax()))
    return found


def everything(program: str, root: Path) -> tuple[set[int], set[int]]:
    """The frames and the tenths of a second of all files below a folder: media, and JPEGs in whatever they lie."""
    shown: set[int] = set()
    heard: set[int] = set()
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        data = path.read_bytes()
        if path.suffix in (".mp4", ".webm", ".mkv", ".bin"):
            hidden = ["-ignore_editlist", "1"] if path.suffix == ".mp4" else []
            shown |= numbers(program, path, *hidden)
            heard |= tenths(program, path, *hidden)
        elif b"\xff\xd8\xff" in data:
            jpegs = path.with_name(path.name + ".mjpeg")
            jpegs.write_bytes(b"".join(_jpegs(data)))
            shown |= numbers(program, jpegs, "-f", "mjpeg")
            jpegs.unlink()
    return shown, heard


def _jpegs(data: bytes) -> list[bytes]:
    found, at = [], 0
    while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        end = data.find(b"\xff\xd9", at) + 2
        found.append(data[at:end])
        at = max(end, at + 3)
    return found
