"""Transfer curves of high dynamic range, as tables that ffmpeg's `lut1d` reads: `python -m mbt.pipeline.curves`.

They are files and not filters of zimg's, whose floating point differs from CPU to CPU and cannot be pinned.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

# Nits of what is white in a picture of standard range (ITU-R BT.2408-7, section 2.1).
REFERENCE_WHITE = 203.0
HLG_PEAK = 1000.0  # nits of the display for which HLG's gamma is 1.2 (ITU-R BT.2100-2, table 5, note 5f)
_FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Curve:
    """A function of [0, 1], and how finely it is tabled."""

    name: str
    function: Callable[[np.ndarray], np.ndarray]
    size: int

    @property
    def path(self) -> str:
        """Of its table."""
        return str(_FOLDER / f"{self.name}.cube")

    def digest(self) -> str:
        """SHA-256 of its table's file, hexadecimal."""
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def table(self) -> str:
        """The text of its table: the same value for red, green and blue in each row."""
        values = self.function(np.linspace(0.0, 1.0, self.size)).tolist()
        rows = (" ".join([f"{value:.7g}"] * 3) for value in values)
        return "\n".join([f"LUT_1D_SIZE {self.size}", *rows, ""])


def _pq(signal: np.ndarray) -> np.ndarray:
    """Perceptual quantizer to light, in reference whites (ITU-R BT.2100-2, table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000.0 / REFERENCE_WHITE * (np.maximum(root - c1, 0.0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg(signal: np.ndarray) -> np.ndarray:
    """Hybrid log-gamma to the scene's light (ITU-R BT.2100-2, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def _hlg_gain(luminance: np.ndarray) -> np.ndarray:
    """What the scene's light is multiplied by for a display, in reference whites, by the scene's luminance."""
    return HLG_PEAK / REFERENCE_WHITE * luminance**0.2


def _srgb(light: np.ndarray) -> np.ndarray:
    """Light to sRGB (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _srgb_light(signal: np.ndarray) -> np.ndarray:
    """SRGB to light."""
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


PQ = Curve("pq", _pq, 1024)
HLG = Curve("hlg", _hlg, 1024)
HLG_GAIN = Curve("hlg_gain", _hlg_gain, 4096)
SRGB = Curve("srgb", _srgb, 4096)
SRGB_LIGHT = Curve("srgb_light", _srgb_light, 1024)
CURVES = (PQ, HLG, HLG_GAIN, SRGB, SRGB_LIGHT)
