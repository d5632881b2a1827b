"""What a film's pictures and sound say of the moment that they show.

A picture bears its number in 4 x 4 cells, white for 1, bit i in row i // 4 and column i % 4: eleven bits of the number,
then five check bits. Sound is a tone for each tenth of a second, one of sixteen, in the order of a de Bruijn sequence:
two tones in turn say where in 25.6 s they are.
"""

import functools

import numpy as np

CELLS = 4
TONES = 16
TONE_S = 0.1
NOTHING = 0  # the number of a black picture; films begin with 1
UNREADABLE = -1  # a picture whose check bits are wrong
SILENCE = -1
UNCLEAR = -2  # between two tones
_NUMBER_BITS = 11
_WINDOW_S = 0.05
_LOUDNESS = 0.1
_SILENT = 0.01  # of full scale, RMS
_CLEAR_SHARE = 0.7  # of a window's energy that is in one tone


def cells(number: int) -> np.ndarray:
    """The (4, 4) picture of a number, 0 or 255."""
    bits = number | _check(number) << _NUMBER_BITS
    return np.array([255 * (bits >> bit & 1) for bit in range(CELLS**2)], np.uint8).reshape(CELLS, CELLS)


def number(picture: np.ndarray) -> int:
    """What a grey picture of any size says; by the middle of each cell."""
    height, width = (length // CELLS for length in picture.shape)
    blocks = picture[: height * CELLS, : width * CELLS].reshape(CELLS, height, CELLS, width)
    middle = blocks[:, height // 4 : height - height // 4, :, width // 4 : width - width // 4]
    bits = sum(1 << bit for bit, value in enumerate(middle.mean(axis=(1, 3)).ravel()) if value > 127)
    said = bits & (1 << _NUMBER_BITS) - 1
    return said if bits >> _NUMBER_BITS == _check(said) else UNREADABLE


def sound(seconds: float, rate: int, first: int = 0) -> np.ndarray:
    """The tones of so many seconds, int16, from the `first` of the sequence on."""
    order = np.roll(_order(), -first)
    at = np.arange(int(seconds * rate))
    frequencies = _hz()[order[(at / rate / TONE_S).astype(int) % len(order)]]
    return (_LOUDNESS * 32767 * np.sqrt(2) * np.sin(2 * np.pi * np.cumsum(frequencies) / rate)).astype(np.int16)


def heard(pcm: np.ndarray, rate: int, at_s: np.ndarray) -> np.ndarray:
    """Which tone is heard at each of the times; or `SILENCE`, or `UNCLEAR`."""
    length = int(_WINDOW_S * rate)
    padded = np.pad(pcm.astype(np.float32) / 32768, (length, length))
    first = np.clip(np.round(at_s * rate).astype(int) + length // 2, 0, len(padded) - length)
    windows = padded[first[:, None] + np.arange(length)]
    energy = (windows**2).sum(axis=1)
    taper, waves = np.hanning(length), np.exp(-2j * np.pi * np.outer(np.arange(length), _hz()) / rate)
    # Of a steady tone these are its energy, whatever the taper.
    of_tones = 2 * length * np.abs((windows * taper) @ waves) ** 2 / taper.sum() ** 2
    best, clear = of_tones.argmax(axis=1), of_tones.max(axis=1) > _CLEAR_SHARE * energy
    return np.where(energy < length * _SILENT**2, SILENCE, np.where(clear, best, UNCLEAR))


def _check(number: int) -> int:
    return (number * 2654435761 >> 7) & 31


def _hz() -> np.ndarray:
    return 300 * 11 ** (np.arange(TONES) / (TONES - 1))


@functools.cache
def _order() -> np.ndarray:
    """De Bruijn's B(16, 2): the Lyndon words whose length divides 2, in lexicographic order."""
    order = []
    for tone in range(TONES):
        order.append(tone)
        for other in range(tone + 1, TONES):
            order += [tone, other]
    return np.array(order)
