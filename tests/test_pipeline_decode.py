import csv
import io
import json
import subprocess

import numpy as np
import pytest
from PIL import Image

from mbt.pipeline import color, curves, ffmpeg, passes, pictures, pieces, sound, timeline
from mbt.pipeline import decode as decoding
from mbt.pipeline.decode import UnusableError, decode, jpeg_size, split_jpegs
from mbt.pipeline.ffmpeg import WorkerTroubleError
from mbt.pipeline.logmel import log_mel

SECOND = 1_000_000
FLASH_S, CLICK_S = 1.2, 1.2


def picture(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def flash_time(clip) -> float:
    """Seconds of the first bright frame."""
    return int(np.argmax([picture(frame).mean() > 100 for frame in clip.frames])) / 25


def click_time(clip) -> float:
    """Seconds of the loudest spectrogram row."""
    return (log_mel(clip.pcm, len(clip.pcm) // 160).sum(axis=1).argmax() + 0.5) / 100


@pytest.fixture(scope="module")
def flash_and_click(ffmpeg_program, tmp_path_factory):
    """make(name, ...): 3 s, black and silent but for a flash and a click at 1.2 s of their own streams."""
    folder = tmp_path_factory.mktemp("flash")

    def make(name: str, *, rate: str = "25", options: tuple[str, ...] = (), video_offset=0.0, audio_offset=0.0):
        path = folder / name
        flash = f"color=black:s=64x48:r={rate},drawbox=c=white:t=fill:enable='gte(t,{FLASH_S})'"
        click = f"aevalsrc='0.9*between(t,{CLICK_S},{CLICK_S}+0.002)':s=44100"
        words = ["-itsoffset", str(video_offset), "-f", "lavfi", "-t", "3", "-i", flash]
        words += ["-itsoffset", str(audio_offset), "-f", "lavfi", "-t", "3", "-i", click]
        command = [ffmpeg_program, "-v", "error", "-y", *words, "-pix_fmt", "yuv420p", *options, str(path)]
        subprocess.run(command, check=True)
        return path

    return make


@pytest.mark.parametrize(
    ("name", "rate", "options"),
    [
        ("plain.mp4", "25", ()),
        ("ntsc.mp4", "30000/1001", ()),
        ("slow.mp4", "12.5", ()),
        ("fast.mp4", "60", ()),
        ("vfr.mp4", "50", ("-vf", "select='not(mod(floor(n*n/7),3))'", "-fps_mode", "vfr")),
        ("matroska.mkv", "30", ("-c:a", "libopus")),
        ("webm.webm", "30", ("-c:v", "libvpx", "-c:a", "libvorbis")),
        ("transport.ts", "25", ()),
        ("avi.avi", "25", ("-c:v", "mpeg4", "-c:a", "mp3")),
        ("long_gop.mp4", "25", ("-g", "1000")),
    ],
)
@pytest.mark.parametrize("start_s", [0.0, 0.7])
def test_flash_and_click_are_where_they_belong(flash_and_click, ffmpeg_program, name, rate, options, start_s):
    media = flash_and_click(name, rate=rate, options=options)
    clip = decode(str(media), int(start_s * SECOND), int((start_s + 2) * SECOND), program=ffmpeg_program)
    assert len(clip.frames) == 50 and len(clip.pcm) == 32_000
    # And a little: the AVI file's writer and the frames left out of the VFR file are a frame late by themselves.
    assert abs(flash_time(clip) - (FLASH_S - start_s)) <= 0.0401
    assert abs(click_time(clip) - (CLICK_S - start_s)) <= 0.04


@pytest.mark.parametrize(("video_offset", "audio_offset"), [(0.4, 0.0), (0.0, 0.4), (1.0, 1.3)])
@pytest.mark.parametrize("extension", ["mp4", "mkv", "ts"])
def test_streams_that_start_apart_stay_aligned(flash_and_click, ffmpeg_program, extension, video_offset, audio_offset):
    name = f"apart-{video_offset}-{audio_offset}.{extension}"
    media = flash_and_click(name, video_offset=video_offset, audio_offset=audio_offset)
    clip = decode(str(media), 0, 3 * SECOND, program=ffmpeg_program)
    assert len(clip.frames) == 75
    apart = flash_time(clip) - click_time(clip)
    assert abs(apart - (video_offset - audio_offset)) <= 0.04


@pytest.mark.parametrize(
    ("source", "filters", "height", "width"),
    [
        ("64x48", (), 48, 64),  # smaller stays
        ("640x360", (), 256, 455),
        ("360x640", (), 455, 256),
        ("320x240", ("-vf", "setsar=4/3"), 240, 320),  # both display sides under 256 pixels: 427 x 240
        ("640x480", ("-vf", "setsar=4/3"), 256, 455),
        ("1002x302", ("-pix_fmt", "yuv444p"), 256, 849),
    ],
)
def test_frame_size(make_media, ffmpeg_program, tmp_path, source, filters, height, width):
    media = make_media(tmp_path / "clip.mkv", size=source, options=("-c:v", "ffv1", *filters), seconds=0.2)
    clip = decode(str(media), 0, SECOND // 5, program=ffmpeg_program)
    expected = (240, 427) if source == "320x240" else (height, width)
    assert (clip.height, clip.width) == expected
    assert all(picture(frame).shape == (*expected, 3) for frame in clip.frames)


def test_display_rotation_is_applied(make_media, ffmpeg_program, tmp_path):
    upright = make_media(tmp_path / "upright.mp4", size="96x64", video="color=red:size=96x64", seconds=0.4)
    rotated = tmp_path / "rotated.mp4"
    words = ["-display_rotation", "90", "-i", str(upright), "-c", "copy", str(rotated)]
    subprocess.run([ffmpeg_program, "-v", "error", *words], check=True)
    clip = decode(str(rotated), 0, 400_000, program=ffmpeg_program)
    assert (clip.height, clip.width) == (96, 64)


@pytest.mark.parametrize("matrix", ["bt709", "smpte170m"])
def test_colours_come_out_right_from_both_matrices(make_media, ffmpeg_program, tmp_path, matrix):
    """JFIF readers assume BT.601, full range; HD video is BT.709, limited."""
    shape = (
        f"color=c=0xC86432:size=64x64:rate=25,format=gbrp,scale=out_color_matrix={matrix}:out_range=tv,format=yuv444p"
    )
    media = make_media(
        tmp_path / "c.mkv", video=shape, seconds=0.2, options=("-pix_fmt", "yuv444p", "-colorspace", matrix)
    )
    clip = decode(str(media), 0, 200_000, program=ffmpeg_program)
    np.testing.assert_allclose(picture(clip.frames[0]).mean(axis=(0, 1)), [0xC8, 0x64, 0x32], atol=4)


def test_stereo_and_rate_are_mixed_and_resampled(make_media, ffmpeg_program, tmp_path):
    sound = "aevalsrc='0.5*sin(2*PI*440*t)|0':s=48000"
    media = make_media(tmp_path / "s.mkv", audio=sound, options=("-c:v", "ffv1", "-c:a", "pcm_s16le"))
    clip = decode(str(media), 0, SECOND, program=ffmpeg_program)
    spectrum = np.abs(np.fft.rfft(clip.pcm[1600:9600] / 32768 * np.hanning(8000)))
    assert spectrum.argmax() * 2 == 440
    assert np.abs(clip.pcm[1600:9600] / 32768).max() == pytest.approx(0.25, abs=0.01)


def test_a_span_beyond_the_end_gives_what_there_is(make_media, ffmpeg_program, tmp_path):
    media = make_media(tmp_path / "m.mp4", seconds=2)
    clip = decode(str(media), SECOND, 6 * SECOND, program=ffmpeg_program)
    assert 25 <= len(clip.frames) <= 27
    assert abs(clip.duration_us - SECOND) < 50_000
    with pytest.raises(UnusableError) as caught:
        decode(str(media), 5 * SECOND, 6 * SECOND, program=ffmpeg_program)
    assert caught.value.reason == "start_past_end"


@pytest.mark.parametrize(
    "name", ["-dash.mp4", "co:lon.mp4", "bra{0}ces.mp4", "per%cent'quote\".mp4", "\u00e9\u4e2d encrypted.mp4"]
)
def test_any_file_name_is_only_a_name(make_media, ffmpeg_program, tmp_path, name):
    make_media(tmp_path / "plain.mp4", seconds=0.2).rename(tmp_path / name)
    assert len(decode(str(tmp_path / name), 0, 200_000, program=ffmpeg_program).frames) == 5


def reason(path, ffmpeg_program, end_us=SECOND) -> str:
    with pytest.raises(UnusableError) as caught:
        decode(str(path), 0, end_us, program=ffmpeg_program)
    return caught.value.reason


def test_reasons(make_media, ffmpeg_program, tmp_path):
    def written(name: str, data: bytes):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    whole = make_media(tmp_path / "whole.mp4", seconds=4, options=("-movflags", "+faststart")).read_bytes()
    assert reason(make_media(tmp_path / "silent.mp4", audio=None), ffmpeg_program) == "no_audio"
    assert reason(make_media(tmp_path / "blind.m4a", video=None), ffmpeg_program) == "no_video"
    assert (
        reason(make_media(tmp_path / "huge.mkv", size="8192x4320", seconds=0.04), ffmpeg_program) == "too_many_pixels"
    )
    assert reason(written("text.mp4", b"<html>gone</html>" * 100), ffmpeg_program) == "not_media"
    assert reason(written("empty.mp4", b""), ffmpeg_program) == "not_media"
    assert reason(written("cut.mp4", whole[: len(whole) // 3]), ffmpeg_program, 4 * SECOND) == "truncated"
    assert reason(tmp_path / "none.mp4", ffmpeg_program) == "missing"


def test_playlists_are_not_media(make_media, ffmpeg_program, tmp_path):
    media = make_media(tmp_path / "real.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{media}\n#EXT-X-ENDLIST\n"
    for name, text in (("list.mp4", playlist), ("list.ts", f"ffconcat version 1.0\nfile '{media}'\n")):
        (tmp_path / name).write_text(text)
        assert reason(tmp_path / name, ffmpeg_program) in ("not_media", "format_not_allowed")


def test_a_title_that_looks_like_a_complaint_is_not_one(make_media, ffmpeg_program, tmp_path):
    title = "[error] moov atom not found\n[fatal] exceeds specified max pixel count"
    media = make_media(tmp_path / "t.mp4", audio=None, options=("-metadata", f"title={title}"))
    assert reason(media, ffmpeg_program) == "no_audio"


def test_a_time_limit_is_this_machines_fault(make_media, ffmpeg_program, tmp_path):
    with pytest.raises(WorkerTroubleError, match="time limit"):
        decode(str(make_media(tmp_path / "m.mp4")), 0, SECOND, program=ffmpeg_program, time_limit_s=-1.99)


def test_the_byte_limit_is_the_clips_fault(make_media, ffmpeg_program, tmp_path, monkeypatch):
    monkeypatch.setattr(passes, "MAX_CLIP_BYTES", 10_000)
    assert reason(make_media(tmp_path / "m.mp4"), ffmpeg_program) == "too_many_bytes"


def test_embedded_ffmpeg_is_used_whatever_is_on_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    ffmpeg.executable.cache_clear()
    assert "imageio_ffmpeg" in ffmpeg.executable()


def test_split_jpegs_and_size(make_media, ffmpeg_program, tmp_path):
    clip = decode(str(make_media(tmp_path / "m.mp4", size="66x50")), 0, SECOND, program=ffmpeg_program)
    assert split_jpegs(b"".join(clip.frames)) == list(clip.frames)
    assert {jpeg_size(frame) for frame in clip.frames} == {(50, 66)}


def test_collection(shared, ffmpeg_program):
    """The real clips with sound: all whole, as long as they should be. The odd ones: a record or a reason."""
    with open(shared / "clips" / "index.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "av"][::4]
    assert len(rows) == 10
    for row in rows:
        seconds = min(float(row["duration_s"]), 3)
        clip = decode(str(shared / "clips" / row["file"]), 0, round(seconds * SECOND), program=ffmpeg_program)
        assert abs(len(clip.frames) - round(25 * seconds)) <= 1
        assert abs(len(clip.pcm) / 160 - 100 * seconds) <= 1


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (sound, "_FAINT", 1.0),
        (sound, "_CANCELLED", 9.0),
        (sound, "_SILENT_PEAK", 4),
        (sound, "_MOST_TRACKS", 31),
        (pieces, "_JITTER", 1),
        (pieces, "_WINDOW", 1),
        (timeline, "_BACK_US", (1,)),
        (timeline, "_BACK_WITHOUT_INDEX_US", (1,)),
        (timeline, "_NEAR_US", 1),
        (timeline, "END_SLACK_US", 1),
        (pictures, "_ALPHA_DECODERS", {}),
        (pictures, "_SIZE", "scale=2:2"),
        (color, "_CHROMATICITIES", {}),
    ],
)
def test_a_number_that_decides_the_bytes_is_among_the_settings(monkeypatch, module, name, value):
    before = json.dumps(decoding.settings())
    monkeypatch.setattr(module, name, value)
    assert json.dumps(decoding.settings()) != before


def test_a_table_of_light_is_among_the_settings_and_its_place_is_not(monkeypatch, tmp_path):
    before = decoding.settings()
    for curve in curves.CURVES:
        (tmp_path / f"{curve.name}.cube").write_text(curve.table())
    assert str(curves.__path__[0]) not in json.dumps(before)
    monkeypatch.setattr(curves, "_FOLDER", tmp_path)
    assert decoding.settings() == before == json.loads(json.dumps(before))
    (tmp_path / "pq.cube").write_text("LUT_1D_SIZE 2\n0 0 0\n1 1 1\n")
    assert decoding.settings() != before


@pytest.mark.parametrize("codec", ["mjpeg", "libx264", "ffv1"])
@pytest.mark.parametrize("size", ["16x4096", "4096x16", "16x16384", "16384x16"])
def test_pictures_that_are_very_wide_or_tall(make_media, ffmpeg_program, tmp_path, size, codec):
    film = make_media(tmp_path / "f.mkv", seconds=0.2, size=size, options=("-c:v", codec, "-strict", "-1"))
    made = decode(str(film), 0, SECOND // 5, program=ffmpeg_program)
    assert f"{made.width}x{made.height}" == size and len(made.frames) == 5
