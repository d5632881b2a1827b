"""Where windows lie in clips of any length."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbt.train.windows import Window, chosen_frames, random_place, starts, view_shares

pytestmark = pytest.mark.quick

# Scenic's: 32 frames at stride 2 (2.56 s), 8 s of sound.
SCENIC = {"frames": 64, "mel_rows": 800}


def window(alignment="start", frames=50, mel_rows=200, loop=False, offsets=(0, 25)):
    return Window(
        frame_offsets=np.array(offsets),
        frames=frames,
        mel_rows=mel_rows,
        alignment=alignment,
        loop=loop,
        mel_fill=0.0,
    )


def drawn(window, num_frames, draws, num_rows=None):
    num_rows = 4 * num_frames if num_rows is None else num_rows
    return [starts(window, num_frames, num_rows, np.array(pair), random=True) for pair in draws]


def test_every_place_is_as_likely():
    places = [random_place(10, draw) for draw in np.arange(1100) / 1100]
    np.testing.assert_array_equal(np.bincount(places), [100] * 11)
    assert random_place(-3, 0.99) == 0


def test_sight_and_sound_begin_together():
    for frame, row in drawn(window(), 60, np.random.default_rng(0).random((50, 2))):
        assert row == 4 * frame
        assert 0 <= frame <= 10


def test_the_longer_of_two_windows_that_begin_together_fits():
    frames = [frame for frame, _ in drawn(window(**SCENIC), 250, [(0.0, 0), (0.999, 0)])]
    assert frames == [0, 50]  # 8 s of 10


def test_one_modality_alone_moves_freely():
    assert drawn(window(mel_rows=0, frames=64), 250, [(0.999, 0)]) == [(186, 744)]


def test_sound_at_the_same_share_of_what_the_clip_leaves_free():
    places = drawn(window("proportion", **SCENIC), 250, [(draw, 0.3) for draw in (0.0, 0.5, 0.999)])
    assert places == [(0, 0), (93, 100), (186, 200)]


def test_sound_finds_its_share_where_the_frames_fill_the_clip():
    places = drawn(window("proportion", frames=60, mel_rows=100), 60, [(0.25, 0)])
    assert places == [(0, 35)]


def test_wrapped_windows_are_those_that_dmvr_samples():
    """Of `sample_sequence` in dmvr/processors.py, 77cceda: the sound's offset is the frames' share of the clip."""
    taken = window("wrapped", frames=64, mel_rows=800, offsets=tuple(range(0, 64, 2)))
    for num_frames, num_rows in ((250, 1000), (250, 998), (75, 300), (63, 252), (40, 160)):
        longest = max(num_frames - 31 * 2, 1)  # its `_get_random_sampling_offset`: offsets below this one
        draws = [((offset + 0.5) / longest, 0.9) for offset in range(longest)]
        found = drawn(taken, num_frames, draws, num_rows)
        assert [frame for frame, _ in found] == list(range(longest))
        for frame, row in found:
            assert row == round(float(np.float32(frame) / np.float32(num_frames) * np.float32(num_rows)))
            frames, _ = chosen_frames(taken, frame, num_frames)
            np.testing.assert_array_equal(frames, (frame + 2 * np.arange(32)) % num_frames)
    assert drawn(taken, 250, [(0.999, 0)]) == [(187, 748)]  # 800 rows from there: the last 548 are the clip's first


def test_wrapped_sound_alone_lies_where_it_fits():
    assert drawn(window("wrapped", frames=0, mel_rows=800, offsets=()), 250, [(0.0, 0), (0.9999, 0)]) == [
        (0, 0),
        (0, 200),
    ]


def test_independent_windows_share_no_draw():
    places = drawn(window("independent", **SCENIC), 250, [(0.0, 0.999), (0.999, 0.0)])
    assert places == [(0, 200), (186, 0)]


@pytest.mark.parametrize(("views", "frames"), [(1, [25]), (2, [0, 50]), (3, [0, 25, 50]), (4, [0, 17, 33, 50])])
@pytest.mark.parametrize("alignment", ["start", "proportion", "wrapped", "independent"])
def test_views_are_spread_over_the_clip(views, frames, alignment):
    taken = window(alignment, frames=200, mel_rows=800)
    places = [starts(taken, 250, 1000, np.full(2, share), random=False) for share in view_shares(views)]
    assert [frame for frame, _ in places] == frames
    for frame, row in places:
        assert abs(row - 4 * frame) <= 2  # independent sound has places of its own, 10 ms apart


@given(
    st.sampled_from(["start", "proportion", "independent"]),
    *[st.integers(1, 400)] * 2,
    st.integers(1, 1600),
    st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
    st.booleans(),
)
def test_windows_lie_inside_wherever_there_is_room(alignment, num_frames, frames, rows, positions, random):
    taken = window(alignment, frames=frames, mel_rows=rows)
    frame, row = starts(taken, num_frames, 4 * num_frames, np.array(positions), random=random)
    assert 0 <= frame <= max(0, num_frames - frames)
    assert 0 <= row <= max(0, 4 * num_frames - rows)


@pytest.mark.parametrize(("loop", "expected"), [(False, [1, 3, 4, 4]), (True, [1, 3, 0, 2])])
def test_a_short_clip_is_held_or_repeated(loop, expected):
    frames, valid = chosen_frames(window(loop=loop, offsets=(0, 2, 4, 6)), 1, 5)
    np.testing.assert_array_equal(frames, expected)
    assert valid == 0.5
