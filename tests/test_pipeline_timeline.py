"""Spans of films whose every frame and half second can be read off, whatever the container does with a seek."""

import dataclasses
import io
import itertools
import subprocess

import numpy as np
import pytest
from PIL import Image

from mbt.pipeline import probe as prober
from mbt.pipeline import timeline
from mbt.pipeline.decode import UnusableError, decode
from mbt.pipeline.patience import TooSlowError
from mbt.pipeline.probe import probe

SECOND = 1_000_000
# Left half: the low four bits of the frame's number as a grey; right half: the high ones.
NUMBERED = "nullsrc=s=64x48:r={rate}:d={seconds},geq=lum='16+13*if(lt(X,32),mod(N,16),floor(N/16))':cb=128:cr=128"
STEPS = "aevalsrc='0.4*sin(2*PI*(200+100*floor(2*t))*t)':s=48000:d={seconds}"


def number(jpeg: bytes) -> int:
    grey = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).astype(float)
    low, high = (round((grey[8:40, at : at + 16].mean() * 219 / 255) / 13) for at in (8, 40))
    return 16 * high + low


def tones(pcm: np.ndarray) -> list[int]:
    """The tone in the middle of each half second, in steps; -1 for silence."""
    found = []
    for start in range(0, len(pcm) - 7999, 8000):
        part = pcm[start + 2000 : start + 6000].astype(float)
        spectrum = np.abs(np.fft.rfft(part * np.hanning(4000)))
        found.append(-1 if np.abs(part).max() < 300 else round((spectrum.argmax() * 4 - 200) / 100))
    return found


def run(program, *words):
    subprocess.run([program, "-v", "error", "-y", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def film(ffmpeg_program, tmp_path_factory):
    """film(name, ...): a numbered film; the same words give the same file."""
    folder = tmp_path_factory.mktemp("films")

    def make(name: str, *options: str, seconds: float = 8, rate: str = "25", late_s=(0.0, 0.0)):
        path = folder / name
        if not path.exists():
            words = ["-itsoffset", late_s[0], "-f", "lavfi", "-i", NUMBERED.format(rate=rate, seconds=seconds)]
            words += ["-itsoffset", late_s[1], "-f", "lavfi", "-i", STEPS.format(seconds=seconds)]
            run(ffmpeg_program, *words, "-pix_fmt", "yuv420p", *options, path)
        return path

    return make


@pytest.fixture
def cut(ffmpeg_program):
    """cut(path, start_s, end_s): the clip, its frames' numbers and its tones."""

    def make(path, start_s: float, end_s: float):
        clip = decode(str(path), round(start_s * SECOND), round(end_s * SECOND), program=ffmpeg_program)
        return clip, [number(jpeg) for jpeg in clip.frames], tones(clip.pcm)

    return make


FORMS = {
    "far.ts": ("-c:v", "libx264", "-g", "1000", "-c:a", "aac"),
    "far.mpg": ("-c:v", "mpeg2video", "-q:v", "2", "-g", "1000", "-c:a", "mp2"),
    "near.ts": ("-c:v", "mpeg2video", "-q:v", "2", "-g", "25", "-c:a", "ac3"),
    "far.mp4": ("-c:v", "libx264", "-g", "1000"),
    "far.mkv": ("-c:v", "libx264", "-g", "1000", "-c:a", "libvorbis"),
    "vp8.webm": ("-c:v", "libvpx", "-b:v", "1M", "-g", "50", "-c:a", "libopus"),
    "fragments.mp4": (
        "-c:v",
        "libx264",
        "-g",
        "20",
        "-bf",
        "0",
        "-movflags",
        "+frag_keyframe+empty_moov+default_base_moof",
    ),
    "mjpeg.avi": ("-c:v", "mjpeg", "-q:v", "2", "-c:a", "mp3"),
    "stored.mp4": ("-c:v", "libx264", "-g", "100", "-c:a", "aac", "-f", "mpegts"),
    "old.flv": ("-c:v", "flv1", "-q:v", "2", "-g", "60", "-c:a", "mp3", "-ar", "44100"),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("start_s", "end_s"), [(0, 2), (2.4, 4.4), (5.6, 7.6)])
def test_frame_k_is_what_is_seen_then(film, cut, name, start_s, end_s):
    clip, numbers, heard = cut(film(name, *FORMS[name]), start_s, end_s)
    assert len(numbers) == 50 and len(clip.pcm) == 32_000
    # A container's clock starts with its earliest time stamp, which may be that of the sound's warm-up.
    apart = {n - round(25 * start_s + k) for k, n in enumerate(numbers)}
    assert apart <= {-1, 0}, apart
    assert heard == [int(2 * start_s + k + 0.25) for k in range(4)] or start_s % 0.5
    assert heard[1] in (int(2 * start_s) + 1, int(2 * start_s) + 2)
    assert clip.treatments == ()


def test_a_span_far_into_a_file_without_an_index(film, cut):
    """Too far to read from the beginning: the file is scanned, and read from a little before."""
    options = ("-c:v", "libx264", "-g", "100", "-c:a", "aac")
    _, numbers, _ = cut(film("long.ts", *options, seconds=51, rate="5"), 45, 47)
    assert {n - (225 + k // 5) for k, n in enumerate(numbers)} <= {-1, 0, 1}


def test_what_was_written_twice_is_read_on_one_clock(film, cut, ffmpeg_program, tmp_path):
    """Recordings joined by `cat`: their time stamps begin again, and the index and the length know of one."""
    once = film("once.mpg", "-c:v", "mpeg2video", "-q:v", "2", "-g", "12", "-c:a", "mp2", seconds=4)
    joined = tmp_path / "joined.mpg"
    joined.write_bytes(once.read_bytes() * 2)
    _, whole, heard = cut(joined, 0, 8)
    assert len(whole) == 200 and heard[2:7] + heard[10:15] == [2, 3, 4, 5, 6] * 2
    for first, last in ((0, 95), (105, 200)):
        assert sum(np.diff(whole[first:last]) == 1) > 85  # the pictures of both, in their order
    for start_s, end_s in ((1, 3), (3, 5), (5, 7)):
        clip, numbers, _ = cut(joined, start_s, end_s)
        assert clip.duration_us == 2 * SECOND
        assert numbers == whole[25 * start_s : 25 * end_s]
    assert abs(prober.times(str(joined), ffmpeg_program).duration_us - 8 * SECOND) < SECOND // 5
    with pytest.raises(UnusableError) as caught:
        cut(joined, 9, 10)
    assert caught.value.reason == "start_past_end"


@pytest.mark.parametrize("name", ["slides.mp4", "slides.mkv", "slides.ts"])
def test_the_picture_on_screen_at_the_start_is_the_one_held(film, cut, name):
    """Slides of two seconds each."""
    slides = film(name, "-c:v", "libx264", "-g", "1", rate="0.5", seconds=10)
    assert cut(slides, 3, 5)[1] in ([1] * 24 + [2] * 26, [1] * 25 + [2] * 25)
    assert set(cut(slides, 4.6, 5.6)[1]) == {2}


def test_one_picture_for_a_whole_song(film, cut):
    still = film("still.mp4", "-c:v", "libx264", rate="0.1", seconds=10)
    clip, numbers, heard = cut(still, 5, 8)
    assert numbers == [0] * 75 and heard == [10, 11, 12, 13, 14, 15] and clip.treatments == ()


def test_a_span_that_begins_in_a_hole_of_the_picture(film, cut):
    kept = "not(between(t,2.02,4.02))"
    holey = film("holey.mp4", "-vf", f"select='{kept}'", "-fps_mode", "passthrough", "-c:v", "libx264", "-g", "30")
    _, numbers, heard = cut(holey, 3, 5)
    assert numbers[:25] == [50] * 25 and numbers[27:] == list(range(102, 125))
    assert heard == [6, 7, 8, 9]


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv", "late.ts"])
def test_pictures_that_begin_late(film, cut, ffmpeg_program, name):
    late = film(name, "-c:v", "libx264", "-g", "25", late_s=(3.0, 0.0), seconds=6)
    clip, numbers, heard = cut(late, 1, 5)
    assert clip.treatments == ("late_picture",)
    assert set(numbers[:50]) == {0} and numbers[60] in (9, 10, 11)
    assert heard == list(range(2, 10))
    clip, numbers, heard = cut(late, 3.2, 5.2)
    assert clip.treatments == () and numbers[10] in (14, 15, 16)
    with pytest.raises(UnusableError) as caught:
        cut(late, 0.5, 2.5)
    assert caught.value.reason == "no_picture_there"
    with pytest.raises(UnusableError) as caught:
        probe(str(late), SECOND // 2, 5 * SECOND // 2, ffmpeg_program)
    assert caught.value.reason == "no_picture_there"


def test_a_little_late_is_not_worth_a_word(film, cut):
    clip, numbers, _ = cut(film("little.mp4", "-c:v", "libx264", late_s=(0.4, 0.0), seconds=4), 0, 3)
    assert clip.treatments == () and set(numbers[:10]) == {0}


@pytest.mark.parametrize("name", ["silence.mp4", "silence.mkv"])
def test_sound_that_begins_late(film, cut, name):
    late = film(name, "-c:v", "libx264", "-g", "25", late_s=(0.0, 3.0), seconds=6)
    clip, numbers, heard = cut(late, 1, 5)
    assert clip.treatments == ("late_sound",)
    assert heard == [-1, -1, -1, -1, 0, 1, 2, 3] and numbers[40] in (64, 65, 66)
    with pytest.raises(UnusableError) as caught:
        cut(late, 0.5, 2.5)
    assert caught.value.reason == "no_sound_there"


def test_a_change_of_size_is_scaled_to_the_first(ffmpeg_program, tmp_path):
    words = ["-f", "lavfi", "-i", "sine=r=48000:d=2", "-c:v", "libx264", "-g", "25", "-pix_fmt", "yuv420p"]
    parts = []
    for size in ("64x48", "128x96", "96x48"):
        parts.append(tmp_path / f"{size}.ts")
        run(ffmpeg_program, "-f", "lavfi", "-i", f"testsrc2=s={size}:d=2", *words, "-c:a", "aac", parts[-1])
    grown = tmp_path / "grown.ts"
    grown.write_bytes(b"".join(part.read_bytes() for part in parts))
    clip = decode(str(grown), 1 * SECOND, 5 * SECOND, program=ffmpeg_program)
    assert (clip.height, clip.width, len(clip.frames)) == (48, 64, 100)
    assert sum(one != other for one, other in itertools.pairwise(clip.frames)) > 95  # none of them held
    clip = decode(str(grown), 3 * SECOND, 5 * SECOND, program=ffmpeg_program)
    assert (clip.height, clip.width, len(clip.frames)) == (96, 128, 50)


def test_a_change_of_channels_and_rate_is_heard_through(ffmpeg_program, tmp_path):
    parts = []
    for step, form in enumerate(("44100:mono", "48000:stereo", "32000:5.1")):
        rate, layout = form.split(":")
        sound = f"sine=f={200 + 100 * step}:r={rate}:d=2,aformat=channel_layouts={layout}"
        parts.append(tmp_path / f"{layout}.ts")
        words = ["-f", "lavfi", "-i", "testsrc2=s=64x48:d=2", "-f", "lavfi", "-i", sound, "-pix_fmt", "yuv420p"]
        run(ffmpeg_program, *words, "-c:v", "libx264", "-g", "25", "-c:a", "aac", parts[-1])
    changed = tmp_path / "changed.ts"
    changed.write_bytes(b"".join(part.read_bytes() for part in parts))
    for start_s, end_s in ((0, 6), (1, 5), (3, 6)):
        clip = decode(str(changed), start_s * SECOND, end_s * SECOND, program=ffmpeg_program)
        changes = sum(one != other for one, other in itertools.pairwise(clip.frames))
        assert changes > 0.75 * 25 * (end_s - start_s)  # small pictures: some are the same as the one before
        assert tones(clip.pcm) == [(k // 2 + start_s) // 2 for k in range(2 * (end_s - start_s))]


@pytest.mark.parametrize("rate", ["30000/1001", "30", "50", "60000/1001", "60", "120"])
@pytest.mark.parametrize("start_s", [0.0, 0.713])
def test_the_frame_is_the_nearest(film, cut, rate, start_s):
    numerator, _, denominator = rate.partition("/")
    period_s = int(denominator or 1) / int(numerator)
    fast = film(f"{rate.replace('/', '_')}.mp4", "-c:v", "libx264", "-qp", "10", "-g", "30", rate=rate, seconds=2)
    _, numbers, _ = cut(fast, start_s, start_s + 1)
    times_s = np.arange(256) * period_s
    for k, n in enumerate(numbers):
        wanted_s = start_s + k / 25
        assert abs(times_s[n] - wanted_s) <= np.abs(times_s - wanted_s).min() + 1.1e-3, (k, n)


@pytest.mark.parametrize("name", ["plain.mp4", "far.ts", "slides.mp4"])
def test_the_probe_says_the_same(film, cut, ffmpeg_program, name):
    path = film(name, *FORMS.get(name, ("-c:v", "libx264")))
    clip, _, _ = cut(path, 2.4, 4.4)
    assert probe(str(path), 2_400_000, 4_400_000, ffmpeg_program).duration_us == clip.duration_us


def test_a_plain_file_takes_one_pass(film, cut, monkeypatch):
    passes = []
    real = timeline.passes.run
    monkeypatch.setattr(timeline.passes, "run", lambda *words, **more: passes.append(words) or real(*words, **more))
    for start_s in (0.0, 0.05, 2.4):
        cut(film("far.mp4", *FORMS["far.mp4"]), start_s, start_s + 2)
    assert len(passes) == 3


def test_each_pass_has_the_time_limit(film, ffmpeg_program):
    from mbt.pipeline.ffmpeg import WorkerTroubleError

    late = film("late.mp4", "-c:v", "libx264", "-g", "25", late_s=(3.0, 0.0), seconds=6)
    with pytest.raises(WorkerTroubleError, match="time limit"):
        decode(str(late), SECOND, 5 * SECOND, program=ffmpeg_program, time_limit_s=-7.99)


@pytest.fixture
def runs(monkeypatch):
    """The arguments of every run of ffmpeg."""
    found = []
    real = timeline.process.run
    monkeypatch.setattr(timeline.process, "run", lambda *words, **more: found.append(words[1]) or real(*words, **more))
    return found


def is_decoding(words) -> bool:
    return "copy" not in words


@pytest.fixture(scope="module")
def half_film(ffmpeg_program, tmp_path_factory):
    """half_film(name, pictures, sound): a film of 60 s of which one stream is there only from one second to another."""
    folder = tmp_path_factory.mktemp("halves")

    def make(name: str, pictures: tuple[float, float], sound: tuple[float, float]):
        path = folder / name
        words = ["-itsoffset", pictures[0], "-f", "lavfi", "-i", f"testsrc2=s=64x48:d={pictures[1] - pictures[0]}"]
        words += ["-itsoffset", sound[0], "-f", "lavfi", "-i", f"sine=d={sound[1] - sound[0]}"]
        run(ffmpeg_program, *words, "-pix_fmt", "yuv420p", "-c:v", "mpeg4", "-g", "25", "-c:a", "mp2", path)
        return path

    return make


@pytest.mark.parametrize(
    ("stream", "extension"),
    [("sound", "mp4"), ("sound", "mkv"), ("sound", "ts"), ("sound", "mpg"), ("picture", "mkv")],
)
def test_a_stream_that_is_absent_is_not_sought_from_the_beginning(half_film, cut, runs, stream, extension):
    if stream == "sound":
        path = half_film(f"deaf.{extension}", pictures=(0, 60), sound=(0, 5))
    else:
        path = half_film(f"blind.{extension}", pictures=(57, 60), sound=(0, 60))
    with pytest.raises(UnusableError) as caught:
        cut(path, 50, 52)
    assert caught.value.reason == f"no_{stream}_there"
    decoded = [words for words in runs if is_decoding(words)]
    assert all("-ss" in words for words in decoded), decoded
    assert len(decoded) <= 2  # a file without an index is first asked what it is


def test_neither_stream_is_there(half_film, cut, runs):
    with pytest.raises(UnusableError) as caught:
        cut(half_film("gap.mkv", pictures=(56, 60), sound=(0, 5)), 50, 52)
    assert caught.value.reason == "no_frames_or_sound"
    assert all("-ss" in words for words in runs if is_decoding(words))


def test_what_a_seek_skips_is_still_found(film, cut):
    """The pictures begin behind the span, and the sound must not be thought absent because a seek lands there."""
    late = film("skipped.mp4", "-c:v", "libx264", "-g", "25", late_s=(3.0, 0.0), seconds=6)
    clip, _, heard = cut(late, 2, 5)
    assert clip.treatments == ("late_picture",) and heard == [4, 5, 6, 7, 8, 9]


def test_a_pass_that_failed_stands_where_the_beginning_takes_too_long(film, cut, monkeypatch):
    path = film("far.mp4", *FORMS["far.mp4"])
    real = timeline.passes.run

    def slow(span, place, *words, **more):
        if not place:
            raise TooSlowError("ffmpeg ran into the time limit")
        done = real(span, place, *words, **more)
        return dataclasses.replace(done, returncode=1)

    monkeypatch.setattr(timeline.passes, "run", slow)
    with pytest.raises(UnusableError) as caught:
        cut(path, 2.4, 4.4)
    assert caught.value.reason == "decode_failed"


def test_a_pass_that_misses_the_start_does_not_stand_where_the_beginning_takes_too_long(film, cut, monkeypatch):
    path = film("late.mp4", "-c:v", "libx264", "-g", "25", late_s=(3.0, 0.0), seconds=6)
    real = timeline.passes.run

    def slow(span, place, *words, **more):
        if not place:
            raise TooSlowError("ffmpeg ran into the time limit")
        return real(span, place, *words, **more)

    monkeypatch.setattr(timeline.passes, "run", slow)
    with pytest.raises(TooSlowError):
        cut(path, 1, 5)


def test_a_file_without_an_index_is_scanned_once(film, cut, runs, ffmpeg_program, tmp_path):
    long = tmp_path / "long.ts"
    options = ("-c:v", "libx264", "-g", "100", "-c:a", "aac")
    long.write_bytes(film("long.ts", *options, seconds=51, rate="5").read_bytes())
    for start_s, end_s in ((40, 42), (44, 47)):
        cut(long, start_s, end_s)
    assert len([words for words in runs if not is_decoding(words)]) == 1
    before = timeline.scan(str(long), ffmpeg_program, 60)
    long.write_bytes(long.read_bytes() * 2)
    after = timeline.scan(str(long), ffmpeg_program, 60)
    assert not before[0] and after[0] and after[1] > 1.9 * before[1]
