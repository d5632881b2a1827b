"""Films put together at random, decoded in place and through the media store; and that their marks can be trusted."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from campaigns import films as campaign
from films import make, marks, plan, truth, ways
from films.verdict import Kind, judge, picture_number
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mbt.pipeline.decode import Decoded, UnusableError

CAMPAIGN = Path(campaign.__file__)
PLAIN = dataclasses.replace(
    plan.draw(0),
    **{"container": "mp4", "into": "mp4", "then": "", "video": "libx264", "audio": "aac", "rate": "25"},
    **{"hole": None, "keep": 0, "video_late_s": 0.0, "audio_late_s": 0.0, "more_tracks": False, "seconds": 6.0},
)


@pytest.fixture(scope="module")
def plain(ffmpeg_program, tmp_path_factory) -> Path:
    return make.make(PLAIN, tmp_path_factory.mktemp("films"), ffmpeg_program)


@given(st.integers(0, 2047), st.integers(8, 64))
def test_a_number_is_read_off_a_jpeg(number, cell):
    picture = Image.fromarray(marks.cells(number).repeat(cell, axis=0).repeat(cell, axis=1))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=60)
    assert picture_number(file.getvalue()) == number


def test_a_damaged_number_is_not_taken_for_another():
    cells = marks.cells(300)
    for row in range(4):
        for column in range(4):
            wrong = cells.copy()
            wrong[row, column] = 255 - wrong[row, column]
            assert marks.number(wrong.repeat(8, axis=0).repeat(8, axis=1)) != 300


def test_two_tones_in_turn_say_when_it_is():
    pcm = marks.sound(25.6, 16_000)
    tones = marks.heard(pcm, 16_000, np.arange(256) * marks.TONE_S + marks.TONE_S / 2).tolist()
    assert set(tones) == set(range(marks.TONES))
    assert len({(tones[at], tones[(at + 1) % 256]) for at in range(256)}) == 256


def test_silence_is_no_tone():
    assert (marks.heard(np.zeros(16_000, np.int16), 16_000, np.arange(10) / 10) == marks.SILENCE).all()


def test_the_truth_of_a_plain_film_is_its_plan(plain, ffmpeg_program):
    told = truth.read(plain, ffmpeg_program)
    assert told.numbers.tolist() == list(range(1, 151))
    assert told.times == pytest.approx(np.arange(150) / 25, abs=0.001)
    assert told.sounds_s == pytest.approx(np.array([[0, 6]]), abs=0.03)
    order = marks.heard(marks.sound(6, 16_000), 16_000, np.arange(0, 6, truth.GRID_S))
    clear = order != marks.UNCLEAR
    assert np.mean(told.tones[: len(order)][clear] == order[clear]) > 0.95


@pytest.mark.parametrize("moved", ["pictures", "sound", "end", "nothing"])
def test_a_record_that_is_off_is_found_out(plain, ffmpeg_program, moved):
    told = truth.read(plain, ffmpeg_program)
    clip = ways.local(plain, (1_000_000, 4_000_000), ffmpeg_program)
    assert isinstance(clip, Decoded), clip
    late = ways.local(plain, (1_080_000, 4_080_000), ffmpeg_program)
    changed = {
        "pictures": {"frames": late.frames},
        "sound": {"pcm": late.pcm},
        "end": {"frames": clip.frames[:-3], "duration_us": 2_880_000},
        "nothing": {},
    }[moved]
    judged = judge(told, (1_000_000, 4_000_000), dataclasses.replace(clip, **changed))
    assert judged.kind == (Kind.RIGHT if moved == "nothing" else Kind.WRONG), judged.detail


@pytest.mark.parametrize(
    ("span", "kind"), [((1_000_000, 4_000_000), Kind.LOST), ((4_000_000, 6_000_000), Kind.LACKING)]
)
def test_a_lost_clip_is_judged_by_what_is_there(plain, ffmpeg_program, span, kind):
    told = dataclasses.replace(truth.read(plain, ffmpeg_program), sounds_s=np.array([[0.0, 5.0]]))
    assert judge(told, span, UnusableError("decode_failed")).kind == kind


def test_a_seek_to_what_is_no_key_frame_is_found_out(ffmpeg_program, tmp_path):
    """ffmpeg's copies of H.263 mark every picture as one; the decoder then shows grey without a word."""
    changes = {"container": "mkv", "into": "mkv", "then": "remux", "video": "h263", "size": (176, 144), "rate": "15"}
    path = make.make(dataclasses.replace(PLAIN, key_frames=30, **changes), tmp_path, ffmpeg_program)
    told, span = truth.read(path, ffmpeg_program), (3_000_000, 5_000_000)
    judged = judge(told, span, ways.local(path, span, ffmpeg_program))
    assert judged.kind == Kind.RIGHT, judged.detail


@pytest.mark.parametrize("late", ["video_late_s", "audio_late_s"])
def test_the_clock_begins_again_where_one_stream_has_ended_and_the_other_has_given_its_part(
    ffmpeg_program, tmp_path, late
):
    changes = {"container": "mpg", "into": "mpg", "then": "join", "video": "mpeg2video", "audio": "mp2", late: 2.3}
    path = make.make(dataclasses.replace(PLAIN, sample_rate=48_000, **changes), tmp_path, ffmpeg_program)
    told, span = truth.read(path, ffmpeg_program), (4_600_000, 6_450_000)
    judged = judge(told, span, ways.local(path, span, ffmpeg_program))
    assert judged.kind == Kind.RIGHT, judged.detail


@settings(max_examples=6, derandomize=True)
@given(st.integers(1 << 20, 1 << 40))
def test_any_film_gives_what_its_marks_say(seed):
    off = [row for row in campaign.run(seed) if row.kind in campaign.OFF]
    assert not off, "\n".join(f"{row.span} {row.way}: {row.kind}: {row.detail}; {row.film}" for row in off)


@pytest.mark.slow
def test_a_tenth_of_the_campaign():
    result = subprocess.run(
        [sys.executable, CAMPAIGN, "--share=0.1"], capture_output=True, text=True, timeout=1200, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "| all | 200 |" in result.stdout
