"""Too many source pictures for each frame: by ffmpeg's numbers, and in real files of squeezed time stamps."""

import itertools
import subprocess

import pytest

from mbt.pipeline import ffmpeg
from mbt.pipeline.decode import decode
from mbt.pipeline.picture_rate import PictureRate
from mbt.pipeline.probe import probe
from mbt.pipeline.reasons import UnusableError
from mbt.schemas.clip import MICROSECONDS as SECOND

NO_NUMBER = (1 << 64) - 1


def lines(passed_over: list[int], first: int = 0) -> bytes:
    """ffmpeg's lines about frames, by how many source pictures further each one's is."""
    numbers = itertools.accumulate(passed_over, initial=first)
    return b"".join(b"%d 1/90000 %d\n" % (3600 * frame, number) for frame, number in enumerate(numbers))


def is_too_much(stats: bytes, part: int = 1 << 20) -> bool:
    told = PictureRate()
    try:
        for at in range(0, len(stats), part):
            told(stats[at : at + part])
    except UnusableError as error:
        return error.reason == "too_many_pictures"
    return False


@pytest.mark.quick
@pytest.mark.parametrize(
    ("passed_over", "expected"),
    [
        ([41] * 5, True),
        ([41] * 4, False),
        ([40] * 1000, False),  # a thousand a second
        ([38, 39, 38, 38, 39] * 200, False),  # phones' 960
        ([41, 41, 41, 41, 40] * 200, False),
        ([41, 41, 41, 41, 0, 41, 41, 41, 41], False),
        ([1] * 100 + [10_000] + [1] * 100, False),  # a clock that begins again
        ([1] * 100 + [10_000] * 5, True),
        ([0] * 1000, False),
    ],
)
def test_what_is_too_much(passed_over, expected):
    whole = lines(passed_over)
    assert is_too_much(whole) == expected
    assert is_too_much(lines(passed_over, first=1_000_000)) == expected  # what was read before the span does not count
    assert all(is_too_much(whole, part) == expected for part in (1, 7, 40))


@pytest.mark.quick
def test_pictures_without_a_number_are_not_counted():
    assert not is_too_much(b"0 1/90000 %d\n" % NO_NUMBER * 10)
    assert not is_too_much((b"0 1/90000 %d\n" % NO_NUMBER + b"0 1/90000 7\n") * 10)


@pytest.fixture(scope="module")
def quick_film(ffmpeg_program, tmp_path_factory):
    """film(name, rate, seconds, ...) is of tiny pictures, copied with more options, and a tone of a second."""
    folder = tmp_path_factory.mktemp("quick")

    def make(name: str, rate: int, seconds: float, *more: str):
        pictures, film = folder / f"pictures-{name}", folder / name
        quiet = [ffmpeg_program, "-v", "error", "-y"]
        x264 = ["-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-pix_fmt", "yuv420p"]
        source = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:r={rate}:d={seconds}"]
        subprocess.run([*quiet, *source, *x264, "-video_track_timescale", "90000", str(pictures)], check=True)
        sound = ["-f", "lavfi", "-i", "sine=d=1"]
        copied = ["-map", "0:v", "-map", "1:a", "-c:v", "copy", *more]
        subprocess.run([*quiet, "-i", str(pictures), *sound, *copied, str(film)], check=True)
        return film

    return make


@pytest.mark.parametrize("start_s", [0, 0.1])
@pytest.mark.parametrize("name", ["squeezed.mp4", "squeezed.ts"])
@pytest.mark.parametrize("look", [decode, probe])
def test_squeezed_time_stamps_give_no_clip(quick_film, ffmpeg_program, name, start_s, look):
    """9,000 pictures a second."""
    film = quick_film(name, 1000, 4, "-bsf:v", "setts=ts=N*10:duration=10")
    start_us = int(start_s * SECOND)
    with pytest.raises(UnusableError) as caught:
        look(str(film), start_us, start_us + 3 * SECOND // 10, program=ffmpeg_program)
    assert caught.value.reason == "too_many_pictures"


def test_a_pass_is_stopped_as_soon_as_it_is_known(ffmpeg_program):
    """These pictures never end."""
    words = ["-v", "error", "-f", "lavfi", "-i", "testsrc2=s=16x16:r=50000", "-vf", "fps=25", "-f", "rawvideo"]
    words += ["-stats_enc_pre:v", "{1}", "-stats_enc_pre_fmt:v", "{{ptsi}} {{tbi}} {{ni}}", "{0}"]
    with pytest.raises(UnusableError, match="too_many_pictures"):
        ffmpeg.run(ffmpeg_program, words, outputs=2, byte_limit=1 << 20, time_limit_s=60, heed={1: PictureRate})


@pytest.mark.parametrize("rate", [120, 240, 960])
def test_slow_motion_is_no_fault(quick_film, ffmpeg_program, rate):
    made = decode(str(quick_film(f"{rate}.mp4", rate, 1)), 0, SECOND, program=ffmpeg_program)
    assert len(made.frames) == 25 and made.treatments == ()
