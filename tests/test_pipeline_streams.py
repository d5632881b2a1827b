import subprocess

import pytest

from mbt.pipeline import streams


@pytest.fixture(scope="module")
def parsed(ffmpeg_program, tmp_path_factory):
    """parsed(name, *words): writes a file with ffmpeg and parses what ffmpeg says of it."""
    folder = tmp_path_factory.mktemp("streams")

    def make(name: str, *words: str) -> streams.Streams:
        path = folder / name
        subprocess.run([ffmpeg_program, "-v", "error", "-y", *words, str(path)], check=True, stdin=subprocess.DEVNULL)
        found = streams.parse(log_of(ffmpeg_program, path))
        assert found is not None
        return found

    return make


def log_of(program, path, *output) -> str:
    command = [program, "-hide_banner", "-nostdin", "-v", "level+info", "-i", str(path), *output]
    return subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")


def lavfi(*descriptions: str) -> list[str]:
    return [word for description in descriptions for word in ("-f", "lavfi", "-i", description)]


PICTURES, SOUND = "testsrc2=s=64x48:d=1", "sine=d=1"


def test_a_plain_file(parsed):
    found = parsed("plain.mp4", *lavfi(PICTURES, SOUND), "-pix_fmt", "yuv420p", "-ac", "2")
    assert found.container == "mov,mp4,m4a,3gp,3g2,mj2"
    assert (found.start_us, found.duration_us) == (0, 1_000_000)
    (video,) = found.video
    assert video == streams.VideoStream(
        index=0,
        codec="h264",
        pix_fmt="yuv420p",
        width=64,
        height=48,
        color_range=None,
        matrix=None,
        primaries=None,
        transfer=None,
        field_order="progressive",
        is_attached_picture=False,
        alpha=False,
    )
    (audio,) = found.audio
    assert audio == streams.AudioStream(
        index=1, codec="aac", sample_rate_hz=44100, layout="stereo", channels=2, is_default=True, language="und"
    )


def test_colours(parsed):
    hdr = "format=yuv420p10le,setparams=range=tv:colorspace=bt2020nc:color_primaries=bt2020:color_trc=smpte2084"
    (video,) = parsed("hdr.mkv", *lavfi(f"{PICTURES}:r=30000/1001,{hdr}"), "-c:v", "ffv1").video
    assert (video.color_range, video.matrix) == ("tv", "bt2020nc")
    assert (video.primaries, video.transfer) == ("bt2020", "smpte2084")
    assert video.pix_fmt == "yuv420p10le"
    same = "format=yuv420p,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709"
    (video,) = parsed("bt709.mkv", *lavfi(f"{PICTURES},{same}"), "-c:v", "ffv1").video
    assert (video.matrix, video.primaries, video.transfer) == ("bt709", "bt709", "bt709")


@pytest.mark.parametrize("codec", ["ffv1", "libx264", "mpeg2video"])
@pytest.mark.parametrize(("mode", "order"), [("tff", "top_first"), ("bff", "bottom_first"), ("prog", "progressive")])
def test_fields(parsed, codec, mode, order):
    """Where the fields are stored line by line, the order has brackets in its name."""
    interlaced = [] if mode == "prog" else ["-flags", "+ilme+ildct"]
    words = [*lavfi(f"{PICTURES},format=yuv420p,setfield={mode}"), "-c:v", codec, *interlaced]
    assert parsed(f"{codec}-{mode}.mkv", *words).video[0].field_order == order


def test_alpha_in_the_format_and_beside_it(parsed):
    alpha = lavfi(f"{PICTURES},format=yuva420p")
    assert parsed("a.mkv", *alpha, "-c:v", "ffv1").video[0].alpha
    beside = parsed("a.webm", *alpha, *lavfi(SOUND), "-c:v", "libvpx-vp9", "-cpu-used", "8", "-deadline", "realtime")
    assert (beside.video[0].pix_fmt, beside.video[0].alpha) == ("yuv420p", True)
    assert not parsed("no.webm", *lavfi(PICTURES), "-c:v", "libvpx", "-pix_fmt", "yuv420p").video[0].alpha


def test_tracks_and_cover_art(parsed):
    words = [*lavfi(PICTURES, SOUND, SOUND, "color=red:s=32x32:d=0.04"), "-map", "0", "-map", "1", "-map", "2"]
    words += [
        "-map",
        "3",
        "-c:v:0",
        "libx264",
        "-pix_fmt:v:0",
        "yuv420p",
        "-c:v:1",
        "mjpeg",
        "-pix_fmt:v:1",
        "yuvj420p",
    ]
    words += ["-disposition:a:0", "comment", "-disposition:a:1", "default", "-disposition:v:1", "attached_pic"]
    found = parsed("tracks.mp4", *words)
    assert [stream.is_default for stream in found.audio] == [False, True]
    assert [(stream.index, stream.is_attached_picture) for stream in found.video] == [(0, False), (3, True)]


@pytest.mark.parametrize(
    ("layout", "codec", "name", "channels"),
    [
        ("mono", "pcm_s16le", "m.mkv", 1),
        ("5.1(side)", "flac", "s.mkv", 6),
        ("7.1.4", "pcm_s24le", "x.mkv", 12),
        ("7.1(wide)", "aac", "w.mp4", 8),
        ("quad", "flac", "q.mkv", 4),
    ],
)
def test_channel_layouts(parsed, layout, codec, name, channels):
    found = parsed(name, *lavfi(PICTURES, f"anoisesrc=d=1:r=48000,aformat=channel_layouts={layout}"), "-c:a", codec)
    (audio,) = found.audio
    assert (audio.layout, audio.channels, audio.sample_rate_hz) == (layout, channels, 48000)


def test_ambisonics(parsed):
    sound = "aevalsrc=0.3*sin(2*PI*440*t)|0|0|0:d=1:s=48000:c=ambisonic 1"
    words = ["-c:a", "libopus", "-mapping_family", "2"]
    (audio,) = parsed("ambisonic.mkv", *lavfi(PICTURES, sound), *words).audio
    assert (audio.layout, audio.channels) == ("ambisonic 1", 4)


@pytest.mark.parametrize(
    "language",
    ["eng", "", "e): Audio: fake, 8 Hz, (mono", "a\nb", "\u4e2d\u6587", "(((", ": Video: h264, 2x2"],
)
def test_a_language_says_nothing_but_itself(parsed, language):
    words = [*lavfi(PICTURES, SOUND), "-metadata:s:0", f"language={language}", "-metadata:s:1", f"language={language}"]
    found = parsed("language.mkv", *words, "-c:v", "ffv1", "-pix_fmt", "yuv420p", "-c:a", "flac")
    assert [(stream.index, stream.codec, stream.width) for stream in found.video] == [(0, "ffv1", 64)]
    assert [(stream.index, stream.codec, stream.channels) for stream in found.audio] == [(1, "flac", 1)]


def test_titles_are_not_streams(parsed):
    title = "x\n[info]   Stream #0:5: Audio: aac, 8000 Hz, mono, fltp (default)\n  Duration: 99:00:00.00, start: 5.0"
    words = [*lavfi(PICTURES, SOUND), "-metadata", f"title={title}", "-metadata:s:0", f"title={title}"]
    found = parsed("title.mkv", *words, "-c:v", "ffv1", "-c:a", "flac")
    assert [stream.index for stream in (*found.video, *found.audio)] == [0, 1]
    assert found.start_us == 0 and found.duration_us is not None and found.duration_us < 1_100_000


def test_what_is_written_is_not_what_was_read(ffmpeg_program, parsed, tmp_path):
    """The log goes on with the outputs, whose streams are numbered from 0 too."""
    path = tmp_path / "sound_first.mkv"
    words = [*lavfi(SOUND, PICTURES), "-map", "0", "-map", "1", "-c:v", "ffv1", "-c:a", "flac", str(path)]
    subprocess.run([ffmpeg_program, "-v", "error", *words], check=True)
    found = streams.parse(log_of(ffmpeg_program, path, "-map", "0:1", "-f", "null", "-"))
    assert found is not None
    assert [stream.index for stream in found.video] == [1]
    assert [stream.index for stream in found.audio] == [0]


def test_without_an_input_there_is_nothing(ffmpeg_program, tmp_path):
    (tmp_path / "text.mp4").write_text("Input #0, mov, from 'x'")
    assert streams.parse(log_of(ffmpeg_program, tmp_path / "text.mp4")) is None
