import numpy as np
import pytest

from mbt.pipeline.pieces import place

pytestmark = pytest.mark.quick

PIECE = 341


def placed(times, most=10**6, lengths=None) -> np.ndarray:
    lengths = np.full(len(times), PIECE) if lengths is None else np.array(lengths)
    return place(np.arange(1, lengths.sum() + 1, dtype=np.int32), np.array(times), lengths, most)


def test_pieces_in_a_row_are_what_came():
    times = np.arange(50) * PIECE
    assert (placed(times) == np.arange(1, 50 * PIECE + 1)).all()
    late = placed(times + 700)
    assert not late[:700].any() and (late[700:] == np.arange(1, 50 * PIECE + 1)).all()
    assert len(placed(times, most=1000)) == 1000


@pytest.mark.parametrize("size", [200, 1440, 16_000])
def test_a_hole_is_silence(size):
    times = np.arange(100) * PIECE
    times[40:] += size
    found = placed(times)
    hole = 40 * PIECE
    assert not found[hole : hole + size].any()
    assert found[hole - 1] == hole and found[hole + size] == hole + 1 and len(found) == 100 * PIECE + size


def test_many_holes_each_have_their_own():
    times = np.arange(100) * PIECE + np.arange(100) // 10 * 340
    found = placed(times)
    for piece in range(0, 100, 10):
        assert found[times[piece]] == piece * PIECE + 1


def test_time_stamps_that_tremble_move_nothing():
    times = np.arange(100) * PIECE
    times[20:23] -= 163
    times[23:26] += 320
    times[50] += 1500
    assert (placed(times) == np.arange(1, 100 * PIECE + 1)).all()


def test_a_clock_that_runs_otherwise_is_followed():
    """By 10 ms at a time."""
    times = np.round(np.arange(1000) * PIECE * 1.002).astype(int)
    found = placed(times)
    for piece in (300, 600, 900):
        at = np.flatnonzero(found == piece * PIECE + 1)[0]
        assert abs(at - times[piece]) <= 2 * 160 + 1


def test_an_overlap_keeps_what_came_first():
    times = np.arange(100) * PIECE
    times[40:] -= 1000
    found = placed(times)
    assert (found[: 40 * PIECE] == np.arange(1, 40 * PIECE + 1)).all()
    assert found[40 * PIECE] == 40 * PIECE + 1 + 1000
    assert len(found) == 100 * PIECE - 1000


def test_channels_stay_together():
    samples = np.arange(8000, dtype=np.int16).reshape(4000, 2)
    found = place(samples, np.array([100, 2600]), np.array([2000, 2000]), 10_000)
    assert found.shape == (4600, 2)
    assert (found[100:2100] == samples[:2000]).all() and (found[2600:] == samples[2000:]).all()
    assert not found[2100:2600].any()
