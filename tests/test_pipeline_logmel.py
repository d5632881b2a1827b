import warnings

import numpy as np
import pytest
import scipy.signal

from mbt.pipeline import logmel


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(int(16_000 * seconds)) * 3000).astype(np.int16)


def reference(pcm: np.ndarray, rows: int) -> np.ndarray:
    """The definition in `dataset.json`, written with scipy."""
    window = scipy.signal.get_window("hamming", 400)
    padded = np.concatenate([np.zeros(120), pcm / 32768, np.zeros(400)])
    frames = np.stack([padded[160 * row : 160 * row + 400] for row in range(rows)])
    magnitude = np.abs(scipy.fft.rfft(frames * window, 1024))
    hz = np.arange(513) * 16_000 / 1024
    mel = 2595 * np.log10(1 + hz / 700)
    edges = np.linspace(0, mel[-1], 130)
    weights = np.stack([np.interp(mel, edges[k : k + 3], [0, 1, 0]) for k in range(128)], axis=1)
    return np.log(magnitude @ weights + 1e-4)


@pytest.mark.parametrize("seconds", [0.01, 0.337, 1.0, 3.2])
def test_agrees_with_scipy(seconds):
    pcm, rows = noise(seconds), round(100 * seconds)
    ours = logmel.log_mel(pcm, rows)
    assert ours.dtype == np.float32 and ours.shape == (rows, 128)
    np.testing.assert_allclose(ours, reference(pcm, rows), atol=2e-6, rtol=0)


def test_agrees_with_tensorflow_io(monkeypatch):
    """Its mel scale on a magnitude of ours; and its spectrogram, which has a Hann window, against a Hann window."""
    monkeypatch.delenv("TF_USE_LEGACY_KERAS")  # it asks for the Keras that no other test imports
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tfio = pytest.importorskip("tensorflow_io")
    pcm = noise(1.0) / 32768
    windows = np.lib.stride_tricks.sliding_window_view(pcm, 400)[::160]
    magnitude = np.abs(np.fft.rfft(windows, 1024)).astype(np.float32)
    mel = tfio.audio.melscale(magnitude, rate=16_000, mels=128, fmin=0, fmax=8000).numpy()
    np.testing.assert_allclose(mel, magnitude @ logmel.mel_weights(), atol=1e-3, rtol=1e-4)
    theirs = tfio.audio.spectrogram(pcm.astype(np.float32), nfft=1024, window=400, stride=160).numpy()
    hann = np.abs(np.fft.rfft(windows * scipy.signal.get_window("hann", 400), 1024))
    rows = min(len(hann), len(theirs))
    np.testing.assert_allclose(theirs[:rows], hann[:rows], atol=2e-4)


def test_mel_weights_are_tensorflows():
    import tensorflow as tf

    weights = tf.signal.linear_to_mel_weight_matrix(128, 513, 16_000, 0.0, 8000.0, tf.float64).numpy()
    np.testing.assert_allclose(logmel.mel_weights(), weights, atol=1e-9)


def test_every_mel_bin_sees_a_frequency():
    assert (logmel.mel_weights().max(axis=0) > 0).all()


def test_silence_is_the_floor():
    rows = logmel.log_mel(np.zeros(16_000, np.int16), 100)
    assert (rows == logmel.LOG_FLOOR).all()
    assert np.float32(np.log(1e-4)) == logmel.LOG_FLOOR


def test_a_click_is_in_its_row():
    pcm = np.zeros(32_000, np.int16)
    pcm[16_000 + 80] = 20_000
    assert logmel.log_mel(pcm, 200).sum(axis=1).argmax() == 100


def test_rows_do_not_depend_on_what_comes_later():
    pcm = noise(5.0)
    np.testing.assert_array_equal(logmel.log_mel(pcm, 500)[:100], logmel.log_mel(pcm[: 16_000 + 400], 101)[:100])


def test_logarithm_is_accurate():
    values = np.exp(np.random.default_rng(1).uniform(-12, 12, 100_000))
    np.testing.assert_allclose(logmel._log(values), np.log(values), rtol=0, atol=1e-12)
