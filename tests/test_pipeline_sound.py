"""Which sound of a file is the clip's, and what happens to sound that mixing would lose."""

import subprocess

import numpy as np
import pytest

from mbt.pipeline.decode import UnusableError, decode

SECOND = 1_000_000
PICTURES = ["-f", "lavfi", "-i", "testsrc2=s=64x48:d=2"]


@pytest.fixture
def clip(ffmpeg_program, tmp_path):
    """clip(name, sounds, ...): a film with these sounds (lavfi sources), decoded."""

    def make(name: str, sounds: list[str], *options: str, start_s: float = 0.0):
        path = tmp_path / name
        words = [word for sound in sounds for word in ("-f", "lavfi", "-i", sound)]
        maps = [word for number in range(len(sounds) + 1) for word in ("-map", str(number))]
        command = [ffmpeg_program, "-v", "error", *PICTURES, *words, *maps, "-pix_fmt", "yuv420p", "-shortest"]
        subprocess.run([*command, *options, str(path)], check=True, stdin=subprocess.DEVNULL)
        return decode(str(path), round(start_s * SECOND), 2 * SECOND, program=ffmpeg_program)

    return make


def heard(pcm: np.ndarray) -> dict[int, float]:
    """The amplitudes of the tones (whole hundreds of Hz) that stand out."""
    part = pcm[8000:16000].astype(float) / 32768
    spectrum = np.abs(np.fft.rfft(part * np.hanning(8000))) / 2000
    return {
        hertz: round(float(spectrum[hertz // 2]), 2) for hertz in range(100, 4000, 100) if spectrum[hertz // 2] > 0.01
    }


def tone(*hertz: int, channels: str = "mono", amplitude: float = 0.4) -> str:
    """A channel for each number; a negative one is the same tone, inverted; 0 is silence."""
    parts = [f"{amplitude * np.sign(f)}*sin(2*PI*{abs(f)}*t)" for f in hertz]
    return f"aevalsrc={'|'.join(parts)}:s=48000:c={channels}:d=2"


def test_the_default_track(clip):
    words = ["-c:v", "ffv1", "-c:a", "flac", "-disposition:a:0", "comment", "-disposition:a:1", "default"]
    made = clip("d.mkv", [tone(300), tone(1000)], *words)
    assert heard(made.pcm) == {1000: 0.4} and made.treatments == ()


def test_without_a_default_the_one_with_most_channels(clip):
    words = ["-c:v", "ffv1", "-c:a", "flac", "-disposition:a:0", "0", "-disposition:a:1", "0"]
    made = clip("c.mkv", [tone(300), tone(1000, 1000, channels="stereo")], *words)
    assert heard(made.pcm) == {1000: 0.4}


@pytest.mark.parametrize("name", ["m.mxf", "m.mkv"])
@pytest.mark.parametrize("start_s", [0.0, 0.5])
def test_microphones_of_their_own_are_mixed(clip, name, start_s):
    words = ["-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-disposition:a:0", "0", "-disposition:a:1", "0"]
    made = clip(name, [tone(300), tone(1000)], *words, start_s=start_s)
    assert heard(made.pcm) == {300: 0.2, 1000: 0.2} and made.treatments == ("mixed_tracks",)


def test_a_microphone_that_is_off_takes_nothing_from_the_others(clip):
    made = clip("off.mxf", [tone(0), tone(1000), tone(0)], "-c:v", "mpeg2video", "-c:a", "pcm_s16le")
    assert heard(made.pcm) == {1000: 0.4} and made.treatments == ("mixed_tracks",)


def test_two_languages_are_not_mixed(clip):
    words = ["-c:v", "ffv1", "-c:a", "flac", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fra"]
    made = clip("l.mkv", [tone(300), tone(1000)], *words, "-disposition:a:0", "0", "-disposition:a:1", "0")
    assert heard(made.pcm) == {300: 0.4} and made.treatments == ()


@pytest.mark.parametrize(("name", "codec"), [("i.mkv", "flac"), ("i.mp4", "aac")])
def test_channels_that_cancel_are_heard(clip, name, codec):
    made = clip(name, [tone(500, -500, channels="stereo")], "-c:a", codec)
    assert heard(made.pcm).keys() == {500} and abs(heard(made.pcm)[500] - 0.4) < 0.03
    assert made.treatments == ("downmix_cancels",)


def test_sound_is_heard_also_in_the_seconds_in_which_its_channels_cancel(ffmpeg_program, tmp_path):
    """Another tone in each second; from 2 s to 7 s the right channel is inverted, and 4 s to 5 s is silent."""
    seconds, rate = 10, 16_000
    time = np.arange(seconds * rate) / rate
    left = 0.4 * np.sin(2 * np.pi * (400 + 100 * np.floor(time)) * time) * ~((time >= 4) & (time < 5))
    right = np.where((time >= 2) & (time < 7), -left, left)
    made = decoded_pcm(ffmpeg_program, tmp_path, np.stack([left, right], axis=1), "stereo")
    heard = made.pcm / 32768
    assert made.treatments == ("downmix_cancels",) and len(heard) == len(left)
    assert np.abs(heard - left).max() < 0.001
    film = decoded_pcm(ffmpeg_program, tmp_path, np.stack([left, left], axis=1), "stereo")
    assert film.treatments == () and np.abs(film.pcm / 32768 - left).max() < 0.001


@pytest.mark.parametrize("copies", [1, 2])
def test_late_sound_whose_channels_cancel_comes_at_its_time(ffmpeg_program, tmp_path, copies):
    """A transport stream's clock begins with what is read of it, and a second recording's with what is read on."""
    sound = ["-itsoffset", "1.2", "-f", "lavfi", "-i", tone(500, -500, channels="stereo")]
    pictures = ["-f", "lavfi", "-i", "testsrc2=s=64x48:d=4"]
    part, film = tmp_path / "part.ts", tmp_path / "film.ts"
    command = [ffmpeg_program, "-v", "error", *pictures, *sound, "-c:v", "mpeg2video", "-c:a", "mp2", str(part)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    film.write_bytes(part.read_bytes() * copies)
    made = decode(str(film), SECOND // 2, 7 * SECOND // 2, program=ffmpeg_program)
    (loud,) = np.nonzero(np.abs(made.pcm) > 1000)
    assert "downmix_cancels" in made.treatments
    assert abs(loud[0] / 16_000 - 0.7) < 0.03 and abs(loud[-1] / 16_000 - 2.7) < 0.03


def test_between_the_mix_and_a_channel_nothing_clicks(ffmpeg_program, tmp_path):
    """The right channel is silent, so that the mix is half of the left; then it cancels."""
    time = np.arange(4 * 16_000) / 16_000
    tone, cancels = 0.4 * np.sin(2 * np.pi * 100 * time), time >= 2
    pcm = np.stack([tone, np.where(cancels, -tone, 0)], axis=1)
    made = decoded_pcm(ffmpeg_program, tmp_path, pcm, "stereo")
    heard = made.pcm / 32768
    assert made.treatments == ("downmix_cancels",)
    assert (
        np.abs(heard[:31_800] - tone[:31_800] / 2).max() < 0.001
        and np.abs(heard[32_000:] - tone[32_000:]).max() < 0.001
    )
    assert np.abs(np.diff(heard)).max() < 1.05 * np.abs(np.diff(tone)).max()


@pytest.mark.parametrize(
    ("layout", "amplitudes", "kept"),
    [
        ("stereo", [0.4, -0.4], 0),
        ("stereo", [0.39, -0.4], 1),
        ("5.1", [0, 0, 0, 0.4, 0, 0], 3),
        ("7.1", [0, 0, 0, 0.4, 0, 0, 0, 0], 3),
        ("7.1", [0.4, -0.4, 0, 0, 0, 0, 0, 0], 0),
        ("7.1", [0, 0, 0, 0, -0.4, 0.4, 0, 0], 4),
        ("7.1", [0.1, -0.1, 0, 0, 0, 0, 0.4, -0.4], 6),
    ],
)
@pytest.mark.parametrize("silent_s", [0, 2])
def test_the_loudest_channel_is_heard_where_all_cancel(ffmpeg_program, tmp_path, layout, amplitudes, kept, silent_s):
    """Low-frequency effects, which no mix holds, are heard where there is nothing else."""
    time = np.arange(4 * 16_000) / 16_000
    pcm = np.outer(np.sin(2 * np.pi * 100 * time) * (time >= silent_s), amplitudes)
    made = decoded_pcm(ffmpeg_program, tmp_path, pcm, layout)
    assert made.treatments == ("downmix_cancels",)
    assert np.abs(made.pcm / 32768 - pcm[:, kept]).max() < 0.001


@pytest.mark.parametrize("channel", range(8))
def test_one_channel_of_eight_is_mixed_by_its_weight(ffmpeg_program, tmp_path, channel):
    """Also where it is faint: nothing cancels, but of low-frequency effects, which have no weight."""
    pcm = np.outer(np.sin(2 * np.pi * 100 * np.arange(32_000) / 16_000), 0.02 * (np.arange(8) == channel))
    made = decoded_pcm(ffmpeg_program, tmp_path, pcm, "7.1")
    assert made.treatments == (("downmix_cancels",) if channel == 3 else ())


def decoded_pcm(program: str, folder, samples: np.ndarray, layout: str):
    """A film of these samples, of 16 kHz, (samples, channels), decoded."""
    (folder / "pcm").write_bytes((samples * 32767).round().astype("<i2").tobytes())
    raw = ["-f", "s16le", "-ar", "16000", "-ch_layout", layout, "-i", str(folder / "pcm")]
    pictures = ["-f", "lavfi", "-i", f"testsrc2=s=64x48:d={len(samples) / 16_000}"]
    command = [program, "-v", "error", "-y", *pictures, *raw, "-pix_fmt", "yuv420p", "-c:a", "flac"]
    subprocess.run([*command, str(folder / "pcm.mkv")], check=True, stdin=subprocess.DEVNULL)
    return decode(str(folder / "pcm.mkv"), 0, len(samples) * SECOND // 16_000, program=program)


def test_a_quiet_film_is_only_quiet(clip):
    made = clip("q.mkv", [tone(500, 500, channels="stereo", amplitude=0.003)], "-c:v", "ffv1", "-c:a", "flac")
    assert made.treatments == () and np.abs(made.pcm).max() in range(90, 110)


def test_one_channel_of_two_is_half_as_loud(clip):
    """ffmpeg's downmix: nothing cancels."""
    made = clip("h.mkv", [tone(500, 0, channels="stereo")], "-c:v", "ffv1", "-c:a", "flac")
    assert heard(made.pcm) == {500: 0.2} and made.treatments == ()


def test_silence_is_said(clip):
    made = clip("s.mkv", [tone(0, 0, channels="stereo")], "-c:v", "ffv1", "-c:a", "flac")
    assert made.treatments == ("silent",) and not made.pcm.any()


def test_ambisonics_give_channel_w(clip):
    sound = tone(600, 700, 0, 0, channels="ambisonic 1")
    made = clip("a.mkv", [sound], "-c:a", "libopus", "-mapping_family", "2", "-b:a", "256k")
    assert heard(made.pcm).keys() == {600} and made.treatments == ("ambisonic",)


def test_channels_of_unknown_places_are_mixed_alike(ffmpeg_program, tmp_path):
    hertz = np.arange(300, 1200, 100)
    samples = 0.9 * np.sin(2 * np.pi * hertz * np.arange(96_000)[:, None] / 48_000)
    (tmp_path / "pcm").write_bytes((samples * 32767).astype("<i2").tobytes())
    raw = ["-f", "s16le", "-ar", "48000", "-ac", "9", "-i", str(tmp_path / "pcm")]
    path = tmp_path / "nine.mkv"
    command = [ffmpeg_program, "-v", "error", *PICTURES, *raw, "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    made = decode(str(path), 0, 2 * SECOND, program=ffmpeg_program)
    assert heard(made.pcm) == dict.fromkeys(hertz.tolist(), 0.1)
    assert made.treatments == ("mixed_channels",)


def test_the_default_video_and_no_cover_art(ffmpeg_program, tmp_path):
    def colour(name: str, *options: str) -> tuple[int, int]:
        sources = ["color=red:s=64x48:d=1", "color=blue:s=128x96:d=1", "sine=d=1"]
        words = [word for source in sources for word in ("-f", "lavfi", "-i", source)]
        maps = [word for number in range(len(sources)) for word in ("-map", str(number))]
        command = [ffmpeg_program, "-v", "error", *words, *maps, "-pix_fmt", "yuv420p", *options, str(tmp_path / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        made = decode(str(tmp_path / name), 0, SECOND, program=ffmpeg_program)
        return made.width, made.height

    neither = ["-disposition:v:0", "0", "-disposition:v:1", "0"]
    assert colour("first.mkv", "-disposition:v:0", "default", "-disposition:v:1", "0") == (64, 48)
    assert colour("second.mkv", "-disposition:v:0", "0", "-disposition:v:1", "default") == (128, 96)
    assert colour("none.mkv", *neither) == (128, 96)
    cover = ["-c:v:1", "mjpeg", "-pix_fmt:v:1", "yuvj420p", "-disposition:v:1", "attached_pic", "-frames:v:1", "1"]
    assert colour("cover.mp4", *cover) == (64, 48)


def test_a_song_with_cover_art_is_no_film(ffmpeg_program, tmp_path):
    words = ["-f", "lavfi", "-i", "color=red:s=64x48:d=0.04", "-f", "lavfi", "-i", "sine=d=1"]
    words += ["-map", "0", "-map", "1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v:0", "attached_pic"]
    path = tmp_path / "song.m4a"
    subprocess.run(
        [ffmpeg_program, "-v", "error", *words, "-f", "mp4", str(path)], check=True, stdin=subprocess.DEVNULL
    )
    with pytest.raises(UnusableError) as caught:
        decode(str(path), 0, SECOND, program=ffmpeg_program)
    assert caught.value.reason == "no_video"
