"""16 kHz PCM to a log-mel spectrogram with exactly 100 rows a second, the same bits on every CPU.

Row r describes the 10 ms from r/100 s on: its 25 ms window is centred there, with silence beyond the clip's ends.
Everything is float64 arithmetic whose result does not depend on vector width or thread count: sums of fixed order
instead of BLAS, and a logarithm of our own instead of the C library's or numpy's, which differ in the last bit between
CPUs. The result is then cast to float32.
"""

import numpy as np

from mbt.schemas.clip import MEL_BINS, MEL_ROWS_PER_SECOND, SAMPLE_RATE_HZ

WINDOW_MS = 25
HOP_MS = 10
FFT_LENGTH = 1024  # of 512, a dozen of the 128 mel bins would see no frequency at all
LOWEST_HZ = 0.0
HIGHEST_HZ = SAMPLE_RATE_HZ / 2
LOG_OFFSET = 1e-4  # about what the rounding to 16 bits leaves in a bin; silence is ln(1e-4) = -9.21
FULL_SCALE = 32768.0

_HOP = SAMPLE_RATE_HZ * HOP_MS // 1000
_WINDOW = SAMPLE_RATE_HZ * WINDOW_MS // 1000
_LEAD = (_WINDOW - _HOP) // 2
_ROWS_AT_A_TIME = 256  # 2 MiB of spectrum: stays in cache, and memory stays flat for a long clip

assert MEL_ROWS_PER_SECOND * HOP_MS == 1000


def settings() -> dict[str, object]:
    """Every number that decides what `log_mel` returns, for `dataset.json`."""
    return {
        "window": "hamming, periodic",
        "window_ms": WINDOW_MS,
        "hop_ms": HOP_MS,
        "fft_length": FFT_LENGTH,
        "mel_bins": MEL_BINS,
        "mel_scale": "HTK, 2595 log10(1 + f/700), triangles straight in mel, of height 1",
        "lowest_hz": LOWEST_HZ,
        "highest_hz": HIGHEST_HZ,
        "spectrum": "magnitude, samples in [-1, 1)",
        "log": "natural, of the value plus log_offset",
        "log_offset": LOG_OFFSET,
        "log_floor": float(LOG_FLOOR),
        "rows_per_second": MEL_ROWS_PER_SECOND,
        "row_alignment": "row r is centred on (r + 0.5) / 100 s",
    }


def log_mel(pcm: np.ndarray, num_rows: int) -> np.ndarray:
    """The log-mel spectrogram of a clip.

    Args:
      pcm: (samples,) int16, 16 kHz mono.
      num_rows: rows wanted; windows beyond the last sample see silence.

    Returns:
      (num_rows, 128) float32, ln(mel-weighted magnitude + 1e-4).
    """
    padded = np.zeros(_HOP * (num_rows - 1) + _WINDOW)
    there = pcm[: len(padded) - _LEAD]
    padded[_LEAD : _LEAD + len(there)] = there
    padded /= FULL_SCALE
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    rows = np.empty((num_rows, MEL_BINS), np.float32)
    for first in range(0, num_rows, _ROWS_AT_A_TIME):
        part = slice(first, first + _ROWS_AT_A_TIME)
        rows[part] = _log(_mel(_magnitude(windows[part])) + LOG_OFFSET)
    return rows


def mel_weights() -> np.ndarray:
    """(513, 128) float64: the weight of each FFT bin in each mel bin, as a plain matrix."""
    rising, falling, starts, segments = _FILTERS
    ends = np.append(starts[1:], len(rising))
    weights = np.zeros((FFT_LENGTH // 2 + 1, MEL_BINS + 2))
    for start, end, segment in zip(starts, ends, segments, strict=True):
        for k in range(start, end):
            weights[k + _FIRST_BIN, segment + 1] += rising[k]
            weights[k + _FIRST_BIN, segment] += falling[k]
    return weights[:, 1:-1]


def _magnitude(windows: np.ndarray) -> np.ndarray:
    """(rows, 400) samples to (rows, 513) magnitudes."""
    spectrum = np.fft.rfft(windows * _HAMMING, FFT_LENGTH)
    return np.sqrt(spectrum.real * spectrum.real + spectrum.imag * spectrum.imag)


def _mel(magnitude: np.ndarray) -> np.ndarray:
    """(rows, 513) to (rows, 128).

    Between the centres of two neighbouring triangles each frequency rises in the one and falls in the other. So the
    matrix product is two sums over the frequencies of each such segment.
    """
    rising, falling, starts, segments = _FILTERS
    used = magnitude[:, _FIRST_BIN : _FIRST_BIN + len(rising)]
    mel = np.zeros((len(magnitude), MEL_BINS + 2))
    mel[:, segments + 1] = np.add.reduceat(used * rising, starts, axis=1)
    mel[:, segments] += np.add.reduceat(used * falling, starts, axis=1)
    return mel[:, 1:-1]


def _filters() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per FFT bin its rising and falling weight; per occupied segment its first bin and its number."""
    mel = _hertz_to_mel(np.arange(_FIRST_BIN, FFT_LENGTH // 2) * (SAMPLE_RATE_HZ / FFT_LENGTH))
    lowest, highest = _hertz_to_mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(lowest, highest, MEL_BINS + 2)
    segment = np.clip(np.searchsorted(edges, mel, side="right") - 1, 0, MEL_BINS)
    rising = (mel - edges[segment]) / (edges[segment + 1] - edges[segment])
    segments, starts = np.unique(segment, return_index=True)
    # Rounded to 2^-40: a last bit of the logarithm, which is the C library's, must not differ between machines.
    rising = np.round(rising * 2.0**40) / 2.0**40
    return rising, 1.0 - rising, starts, segments


def _hertz_to_mel(hz: np.ndarray) -> np.ndarray:
    return 2595.0 * np.log10(1.0 + hz / 700.0)


def _log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm of positive float64 values, to 1e-13, from operations that IEEE 754 rounds exactly.

    x = m 2^e with m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh(s) for s = (m - 1) / (m + 1), |s| < 0.172.
    """
    mantissa, exponent = np.frexp(values)
    low = mantissa < _SQRT_HALF
    mantissa[low] *= 2.0
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    series = np.full_like(square, 1.0 / 15.0)
    for odd in (13, 11, 9, 7, 5, 3, 1):
        series *= square
        series += 1.0 / odd
    return (exponent - low) * _LN_2 + 2.0 * s * series


_SQRT_HALF = 0.7071067811865476
_LN_2 = 0.6931471805599453
_FIRST_BIN = 1  # 0 Hz has no weight
# cos(2 pi n / 400), rounded like the filters.
_HAMMING = np.round((0.54 - 0.46 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)) * 2.0**40) / 2.0**40
_FILTERS = _filters()
LOG_FLOOR = np.float32(_log(np.array([LOG_OFFSET]))[0])
