"""A cut is kept only where it decodes to what its source does."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
from films import ways
from media_server import serving

from mbt.pipeline import media, probe
from mbt.pipeline.cut import cut, is_same
from mbt.pipeline.decode import Decoded
from mbt.pipeline.passes import Span
from mbt.pipeline.patience import TooSlowError
from mbt.pipeline.record import Context, encode

SECOND = 1_000_000
CONTEXT = Context(
    id="c", dataset_name="d", media_id="m", data_path="p", start_us=0, label_indices=[0], label_strings=["a"]
)


@pytest.fixture(scope="module")
def film(make_media, tmp_path_factory):
    """film(name, *options): 24 s, a key frame every 4 s; made once."""
    folder = tmp_path_factory.mktemp("films")

    def make(name: str, *options: str):
        path = folder / name
        if not path.exists():
            sound = "aevalsrc='0.3*sin(2*PI*(300+40*floor(2*t))*t)':s=44100"
            make_media(path, seconds=24, audio=sound, options=("-g", "100", "-sc_threshold", "0", *options))
        return path

    return make


@pytest.fixture
def cut_out(ffmpeg_program, tmp_path):
    """cut_out(path, start_s, end_s) gives the cut, or None; and what probing the source and the cut gave."""

    def run(path, start_s: float, end_s: float):
        start_us, end_us = round(start_s * SECOND), round(end_s * SECOND)
        whole = probe.probe(str(path), start_us, end_us, ffmpeg_program)
        span = Span(path=str(path), start_us=start_us, duration_us=end_us - start_us)
        made = cut(span, whole, str(tmp_path / "cut.mp4"), ffmpeg_program)
        if made is None:
            return None, whole, None
        return made, whole, probe.probe(made.path, start_us - made.zero_us, end_us - made.zero_us, ffmpeg_program)

    return run


def test_a_cut_of_a_plain_film_gives_the_very_same(film, cut_out):
    made, whole, part = cut_out(film("plain.mp4"), 9.6, 13.6)
    assert 7 * SECOND < made.zero_us <= 8.6 * SECOND
    assert (part.thumbnails == whole.thumbnails).all() and (part.pcm == whole.pcm).all()


def test_a_cut_takes_no_longer_than_it_may(film, cut_out, ffmpeg_program, tmp_path):
    path = str(film("plain.mp4"))
    _, whole, _ = cut_out(path, 9.6, 13.6)
    program = tmp_path / "ffmpeg"
    spinning = 'case "$*" in *"-c copy"*) while :; do :; done;; esac'
    program.write_text(f'#!/bin/sh\n{spinning}\nexec {ffmpeg_program} "$@"\n')
    program.chmod(0o755)
    span = Span(path=path, start_us=96 * SECOND // 10, duration_us=4 * SECOND)
    with pytest.raises(TooSlowError, match=r"time limit, [12] s of CPU time"):
        cut(span, whole, str(tmp_path / "slow.mp4"), str(program), time_limit_s=1)


def test_a_cut_begins_further_back_where_a_seek_lands_behind_the_key_frame(film, cut_out):
    made, whole, part = cut_out(film("stream.ts"), 9.6, 13.6)
    assert made.zero_us <= 8.1 * SECOND
    assert (part.thumbnails == whole.thumbnails).mean() > 0.99
    assert np.abs(part.pcm[:60_000].astype(int) - whole.pcm[:60_000]).max() <= 2


def test_what_no_cut_holds_stays_whole(film, cut_out):
    """The only key frame is the first one, and nothing says where that is."""
    made, whole, _ = cut_out(film("one_key_frame.ts", "-g", "9999"), 20.5, 22)
    assert made is None and len(whole.thumbnails) == 38


def test_the_default_track_is_cut(film, cut_out, ffmpeg_program, tmp_path):
    source = tmp_path / "tracks.mkv"
    words = ["-f", "lavfi", "-i", "sine=frequency=3000:duration=24", "-i", str(film("plain.mp4"))]
    words += ["-map", "0:a", "-map", "1:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac"]
    words += ["-disposition:a:0", "0", "-disposition:a:1", "default"]
    subprocess.run([ffmpeg_program, "-v", "error", *words, str(source)], check=True)
    made, whole, part = cut_out(source, 9.6, 13.6)
    assert made is not None and whole.tracks == (1, 2) and part.tracks == (0, 1)
    second = whole.pcm[:16_000].astype(float)
    assert np.abs(np.fft.rfft(second)).argmax() < 2000


def test_several_microphones_are_all_cut(film, cut_out, ffmpeg_program, tmp_path):
    source = tmp_path / "microphones.mov"
    words = ["-f", "lavfi", "-i", "sine=frequency=3000:duration=24", "-i", str(film("plain.mp4"))]
    words += ["-map", "1:v", "-map", "0:a", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", "-ar", "48000"]
    subprocess.run([ffmpeg_program, "-v", "error", *words, "-disposition:a", "default", str(source)], check=True)
    made, whole, part = cut_out(source, 9.6, 13.6)
    assert made is not None and len(whole.tracks) == len(part.tracks) == 3


def test_transparency_that_mp4_does_not_hold_stays_in_the_whole_file(film, cut_out, make_media, tmp_path):
    vp9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
    opaque = make_media(tmp_path / "opaque.webm", seconds=6, options=vp9)
    transparent = make_media(tmp_path / "alpha.webm", seconds=6, options=(*vp9, "-pix_fmt", "yuva420p"))
    assert cut_out(opaque, 2, 4)[0] is not None
    assert cut_out(transparent, 2, 4)[0] is None


@pytest.mark.parametrize("change", ["pictures", "a frame", "sound", "silence", "form", "length", "nothing"])
def test_what_differs_is_seen(film, ffmpeg_program, change):
    here = probe.probe(str(film("plain.mp4")), 4 * SECOND, 6 * SECOND, ffmpeg_program)
    later = probe.probe(str(film("plain.mp4")), 4 * SECOND + 80_000, 6 * SECOND + 80_000, ffmpeg_program)
    other = {
        "pictures": {"thumbnails": later.thumbnails},
        "a frame": {"thumbnails": here.thumbnails[:-2]},
        "sound": {"pcm": np.roll(here.pcm, 8_000)},
        "silence": {"pcm": np.where(np.arange(len(here.pcm)) < 3_200, 0, here.pcm).astype(np.int16)},
        "form": {"form": (*here.form, "interlaced")},
        "length": {"duration_us": here.duration_us - 100_000},
        "nothing": {},
    }[change]
    assert is_same(here, dataclasses.replace(here, **other)) == (change == "nothing")


def test_sound_less_than_a_millisecond_off_is_the_same(film, ffmpeg_program):
    here = probe.probe(str(film("plain.mp4")), 4 * SECOND, 6 * SECOND, ffmpeg_program)
    assert is_same(here, dataclasses.replace(here, pcm=np.roll(here.pcm, 8)))


def test_the_length_of_joined_recordings_is_that_of_both(make_media, ffmpeg_program, tmp_path):
    """Its container's would be the difference of the last time stamp and the first."""
    one = make_media(tmp_path / "one.mpg", seconds=4, options=("-f", "vob", "-c:v", "mpeg2video", "-c:a", "mp2"))
    with open(tmp_path / "both.mpg", "wb") as both:
        for _ in range(2):
            with open(one, "rb") as part:
                shutil.copyfileobj(part, both)
    assert probe.times(str(tmp_path / "both.mpg"), ffmpeg_program).duration_us == pytest.approx(8 * SECOND, abs=200_000)


def test_of_a_long_stream_without_an_index_a_part_is_kept(film, ffmpeg_program, tmp_path):
    """That its length is a guess does not matter: what is cut is compared."""
    media = []
    with serving() as server:
        server.files["stream.ts"] = film("stream.ts").read_bytes()
        url = f"{server.url}/stream.ts"
        (clip,) = ways.fetched(url, [(0, 2 * SECOND)], tmp_path, ffmpeg_program, lambda *stored: media.append(stored))
    assert isinstance(clip, Decoded), clip
    ((path, _),) = media
    assert path.suffix == ".mp4" and path.stat().st_size < len(film("stream.ts").read_bytes()) / 2


@pytest.fixture(scope="module")
def short_clips(make_media, tmp_path_factory):
    """A film of 10 s whose own pictures a cut begins with, as they were broadcast."""
    path = tmp_path_factory.mktemp("short") / "film.mkv"
    return make_media(path, seconds=10, options=("-c:v", "mpeg2video", "-bf", "2", "-g", "30", "-c:a", "ac3"))


@pytest.mark.parametrize("short_us", [20_000, 40_000, 99_999, 100_000, 250_000])
def test_clips_of_a_few_frames_are_fetched_with_the_others(short_clips, ffmpeg_program, tmp_path, short_us):
    start_us = 3_333_333
    spans = [(SECOND, 3 * SECOND), (start_us, start_us + short_us), (4 * SECOND, 6 * SECOND), (6 * SECOND, 8 * SECOND)]
    with serving() as server:
        server.files["film.mkv"] = short_clips.read_bytes()
        came = ways.fetched(f"{server.url}/film.mkv", spans, tmp_path, ffmpeg_program)
    in_place = [ways.local(short_clips, span, ffmpeg_program) for span in spans]
    assert [len(clip.frames) for clip in came] == [50, max(1, (short_us + 20_000) // 40_000), 50, 50]
    assert [clip.frames for clip in came] == [clip.frames for clip in in_place]
    assert [len(clip.pcm) for clip in came] == [32_000, short_us * 16 // 1000, 32_000, 32_000]
    record = encode(CONTEXT, came[1])
    assert record.num_frames == len(came[1].frames) and record.num_mel_rows == round(short_us / 10_000)


@pytest.mark.parametrize("hertz", [300, 3000])
def test_the_sound_of_a_few_frames_is_compared(short_clips, ffmpeg_program, hertz):
    here = probe.probe(str(short_clips), 4 * SECOND, 4_040_000, ffmpeg_program)
    other = 4096 * np.sin(2 * np.pi * hertz * np.arange(len(here.pcm)) / 16_000)
    assert is_same(here, dataclasses.replace(here, pcm=np.roll(here.pcm, 8)))
    assert not is_same(here, dataclasses.replace(here, pcm=other.astype(np.int16)))
    assert not is_same(here, dataclasses.replace(here, pcm=here.pcm[:100]))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_trouble_that_nobody_foresaw_is_its_own_clips_outcome(short_clips, ffmpeg_program, tmp_path, number):
    """In the place of the folder that one of the clips goes to there is a file."""
    spans = [(SECOND, 3 * SECOND), (4 * SECOND, 6 * SECOND), (6 * SECOND, 8 * SECOND)]
    with serving() as server:
        server.files["film.mkv"] = short_clips.read_bytes()
        url = f"{server.url}/film.mkv"
        (tmp_path / "media").mkdir()
        (tmp_path / "media" / media.key(url, *spans[number])[:2]).write_text("")
        came = ways.fetched(url, spans, tmp_path, ffmpeg_program)
        assert server.requests == ["film.mkv"]
    assert [isinstance(clip, Decoded) for clip in came] == [each != number for each in range(3)]
    assert came[number].reason == "internal_error" and "Error in " in came[number].detail
