"""Awkward but everyday films: what a record of a span holds, against ffmpeg's reading of the whole file.

Each span is decoded in place, and fetched with the file's other spans from a server into a media store, which cuts it.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from films import truth, verdict, ways, whole
from films.whole import SAMPLE_RATE_HZ
from media_server import serving
from PIL import Image

from mbt.pipeline.decode import Decoded, UnusableError
from mbt.pipeline.logmel import LOG_OFFSET, log_mel

FRAMES_PER_SECOND = 25
WIDTH, HEIGHT = 128, 32
NEAR_S = 0.03
# A tenth of a second sounds right of whose spectrogram less is elsewhere, as a share. AAC's noise is drawn anew by each
# decoder and takes a third; another tone, or silence, takes all.
ALIKE = 0.5
# A picture is the one that looks most alike, or looks nearly as much so (grey levels, on average).
AS_ALIKE = 0.05

SPANS = {
    "k.ts": [(0, 4), (3, 7), (9.6, 13.6), (17, 21)],
    "k.mts": [(0, 4), (3, 7), (9.6, 13.6), (17, 21)],
    "hls_avc1.mp4": [(0, 4), (3, 7), (9.6, 13.6), (17, 21)],
    "click_ac3.ts": [(2.5, 6.5)],
    "slides5s.mp4": [(7, 12), (11, 14)],
    "fps1.mp4": [(7, 12), (11, 14), (2, 5)],
    "screen.webm": [(2, 5), (7, 12)],
    "still30.mp4": [(10, 20)],
    "joined.vob": [(1, 4), (0, 8), (5.5, 7.5)],
    "grow.ts": [(0, 8), (2, 7)],
    "acchange.ts": [(0, 8), (2, 7)],
    "default2.mkv": [(0, 4), (0, 2)],
    "two_video.mp4": [(0, 4), (0, 2)],
    "holes.mkv": [(0, 6)],
    "rate_60.mp4": [(0, 4)],
    "inverted.mp4": [(0, 4)],
    "ambisonic.mkv": [(0, 4)],
    "two_mono.mxf": [(0, 4), (0, 2)],
}
# What ffmpeg's downmix does not make of these.
TO_MONO = {"inverted.mp4": "pan=mono|c0=c0", "ambisonic.mkv": "pan=mono|c0=c0"}
# One of two microphones, of which the first is silent: ffmpeg's choice is no truth here.
MIXED = ("two_mono.mxf",)
# The picture begins at 5 s, the sound at once.
LATE_PICTURE = {name: [(0.5, 3.5), (2, 10), (4, 9)] for name in ("late_video.mp4", "late_video.mkv")}
COLOURS = ["hdr_pq.mp4", "untagged_hd.mp4", "alpha.webm", "interlaced.mp4"]
COMPOSED = {
    "g004.ts": [(1.418, 7.28), (3.786, 5.428)],
    "f010.avi": [(4.443, 5.475)],
    "f013.mkv": [(6.105, 9.538), (7.402, 9.698)],
    "f020.ts": [(1.426, 5.381), (3.313, 6.598), (6.134, 9.032), (0.509, 5.495)],
    "g029.mp4": [(2.694, 8.168), (1.369, 6.353)],
    "g031.mkv": [(4.766, 6.576), (0.018, 3.852), (0, 1.312), (0.211, 4.637)],
    "g051.3gp": [(3.183, 8.702)],
    "f054.mp4": [(4.473, 7.761)],
    "f075.ts": [(9.083, 11.175)],
    "f081.mpg": [(1.087, 4.728), (6.525, 9.937), (2.692, 8.609)],
    "f033.webm": [(4.922, 7.239)],
}
WAYS = ["in place", "fetched"]


def listed(spans: dict[str, list[tuple[float, float]]]) -> list:
    return [pytest.param(name, span, id=f"{name}-{span[0]}-{span[1]}") for name in spans for span in spans[name]]


@pytest.fixture(scope="module")
def folder(shared) -> Path:
    found = Path(os.path.join(shared, "..", "faults", "media"))
    if not found.exists():
        pytest.skip(f"no awkward films in {found}")
    return found


@pytest.fixture(scope="module")
def wholes(folder, ffmpeg_program):
    """wholes(name) reads all of a file, once."""
    kept: dict[str, whole.Whole] = {}

    def read(name: str) -> whole.Whole:
        if name not in kept:
            kept[name] = whole.read(folder / name, ffmpeg_program, WIDTH, HEIGHT, TO_MONO.get(name, ""))
        return kept[name]

    return read


@pytest.fixture(scope="module")
def come(folder, ffmpeg_program, tmp_path_factory):
    """come(name, span, way) is what came of a span; all spans of a file are fetched at once."""
    every = SPANS | LATE_PICTURE | COMPOSED | {name: [(0, 2)] for name in COLOURS}
    kept: dict[tuple[str, tuple[float, float]], Decoded | UnusableError] = {}

    def fetched(name: str, path: Path) -> None:
        root = tmp_path_factory.mktemp("store")
        with serving() as server:
            server.files[path.name] = path.read_bytes()
            # A second clip of the source makes the store cut what it keeps.
            spans = every[name] if len(every[name]) > 1 else [*every[name], (0, 1)]
            found = ways.fetched(f"{server.url}/{path.name}", [in_us(span) for span in spans], root, ffmpeg_program)
        kept.update({(name, span): clip for span, clip in zip(spans, found, strict=True)})

    def came(name: str, span: tuple[float, float], way: str) -> Decoded | UnusableError:
        path = folder / ("composed" if name in COMPOSED else "") / name
        if way == "in place":
            return ways.local(path, in_us(span), ffmpeg_program)
        if (name, span) not in kept:
            fetched(name, path)
        return kept[name, span]

    return came


def in_us(span: tuple[float, float]) -> ways.Span:
    return round(span[0] * 1e6), round(span[1] * 1e6)


def picture(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(float)


def thumbnail(jpeg: bytes) -> np.ndarray:
    grey = Image.open(io.BytesIO(jpeg)).convert("L")
    return np.asarray(grey.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.int16)


def offsets(film: whole.Whole, clip: Decoded, start_s: float) -> list[float]:
    """How far from its time each frame of a record is on screen in the film, in seconds."""
    ends = np.append(film.times[1:], np.inf)
    found = []
    for index, jpeg in enumerate(clip.frames):
        apart = np.abs(film.pictures - thumbnail(jpeg)).mean(axis=(1, 2))
        alike = apart <= apart.min() + AS_ALIKE
        time_s = start_s + index / FRAMES_PER_SECOND
        off = np.where(film.times > time_s, film.times - time_s, np.where(ends <= time_s, ends - time_s, 0.0))
        found.append(float(min(off[alike], key=abs)))
    return found


def heard_alike(film: whole.Whole, clip: Decoded, start_s: float) -> float:
    """The share of the tenths of a second whose spectrogram is the film's."""
    first = round(start_s * SAMPLE_RATE_HZ)
    wanted = np.zeros_like(clip.pcm)
    piece = film.pcm[first : first + len(wanted)]
    wanted[: len(piece)] = piece
    tenths = len(wanted) * 10 // SAMPLE_RATE_HZ
    expected, got = (np.exp(log_mel(pcm, tenths * 10)).reshape(tenths, -1) for pcm in (wanted, clip.pcm))
    assert (expected > 10 * LOG_OFFSET).any(), "a film to hear nothing in proves nothing"
    apart = np.abs(expected - got).sum(axis=1) / (expected.sum(axis=1) + 1)
    return float(np.mean(apart < ALIKE))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "span"), listed(SPANS))
def test_a_record_holds_what_is_seen_and_heard_then(wholes, come, name, span, way):
    film, clip = wholes(name), come(name, span, way)
    assert isinstance(clip, Decoded), clip
    end_s = min(span[1], max(film.times[-1] + 0.04, film.sound_s[1]))
    assert abs(len(clip.frames) / FRAMES_PER_SECOND - (end_s - span[0])) <= 0.0801
    off = np.abs(offsets(film, clip, span[0]))
    assert np.mean(off <= NEAR_S) >= 0.94, np.round(off, 3).tolist()
    assert name in MIXED or heard_alike(film, clip, span[0]) >= 0.88


@pytest.mark.parametrize("way", WAYS)
def test_frames_at_sixty_a_second_are_the_nearest(wholes, come, way):
    film, clip = wholes("rate_60.mp4"), come("rate_60.mp4", (0, 4), way)
    assert isinstance(clip, Decoded), clip
    times = film.times[None, :] - np.arange(len(clip.frames))[:, None] / FRAMES_PER_SECOND
    nearest = film.pictures[np.abs(times).argmin(axis=1)].astype(np.int16)
    seen = [
        Image.open(io.BytesIO(jpeg)).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BOX) for jpeg in clip.frames
    ]
    apart = [np.abs(wanted - np.asarray(got, np.int16)).mean() for wanted, got in zip(nearest, seen, strict=True)]
    least = [np.abs(film.pictures.astype(np.int16) - np.asarray(got, np.int16)).mean(axis=(1, 2)).min() for got in seen]
    assert np.mean(np.array(apart) <= np.array(least) + AS_ALIKE) >= 0.99


@pytest.mark.parametrize("way", WAYS)
def test_clicks_stay_where_they_are_although_samples_are_missing(come, way):
    clip = come("holes.mkv", (0, 6), way)
    assert isinstance(clip, Decoded), clip
    loud = log_mel(clip.pcm, 600).sum(axis=1)
    clicks = [second + loud[second * 100 - 50 : second * 100 + 50].argmax() / 100 - 0.495 for second in (1, 2, 4, 5)]
    assert clicks == pytest.approx([1, 2, 4, 5], abs=0.02)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "span"), listed(LATE_PICTURE))
def test_sound_before_the_first_picture_is_heard_or_the_clip_is_refused(wholes, come, name, span, way):
    """The picture held before it begins is black, or the first one."""
    film, clip = wholes(name), come(name, span, way)
    missing_s = min(span[1], film.times[0]) - span[0]
    if isinstance(clip, UnusableError):
        assert missing_s > max(0.5, (span[1] - span[0]) / 10), clip
        assert clip.reason not in ("decode_failed", "no_frames_or_sound"), clip
        return
    assert len(clip.frames) == round((span[1] - span[0]) * FRAMES_PER_SECOND)
    assert heard_alike(film, clip, span[0]) >= 0.88
    begun = clip.frames[round(missing_s * FRAMES_PER_SECOND) + 1 :]
    shown = Decoded(frames=begun, pcm=clip.pcm, height=clip.height, width=clip.width, duration_us=clip.duration_us)
    off = offsets(film, shown, span[0] + (len(clip.frames) - len(begun)) / FRAMES_PER_SECOND)
    assert np.mean(np.abs(off) <= NEAR_S) >= 0.94


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["default2.mkv", "two_video.mp4", "two_mono.mxf", "inverted.mp4", "ambisonic.mkv"])
def test_the_track_that_a_player_plays_is_heard(come, name, way):
    """All have a tone of 1 kHz: in the default track, one microphone, both channels against each other, or W."""
    clip = come(name, (0, 4) if name in ("default2.mkv", "two_video.mp4", "two_mono.mxf") else SPANS[name][0], way)
    assert isinstance(clip, Decoded), clip
    second = clip.pcm[SAMPLE_RATE_HZ : 2 * SAMPLE_RATE_HZ] / 32768
    assert np.sqrt((second**2).mean()) > 0.05
    assert abs(np.abs(np.fft.rfft(second)).argmax() - 1000) <= 1


@pytest.mark.parametrize("way", WAYS)
def test_the_default_picture_is_shown(come, way):
    clip = come("two_video.mp4", (0, 2), way)
    assert isinstance(clip, Decoded), clip
    assert (clip.height, clip.width) == (240, 320)
    assert picture(clip.frames[10]).mean(axis=(0, 1)) == pytest.approx([0, 0, 254], abs=6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("name", "off_by", "treatment"), [("hdr_pq.mp4", 30, "tone_mapped"), ("untagged_hd.mp4", 4, "")]
)
def test_colours_are_what_a_player_shows(come, name, off_by, treatment, way):
    clip = come(name, (0, 2), way)
    assert isinstance(clip, Decoded), clip
    height, width = clip.height, clip.width
    patch = picture(clip.frames[25])[height // 3 : height * 2 // 3, width // 10 : width // 4].mean(axis=(0, 1))
    assert patch == pytest.approx([200, 100, 50], abs=off_by)
    assert not treatment or treatment in clip.treatments


@pytest.mark.parametrize("way", WAYS)
def test_what_is_transparent_is_black(come, way):
    """The left half is opaque, the right one hides green."""
    clip = come("alpha.webm", (0, 2), way)
    assert isinstance(clip, Decoded), clip
    shown = picture(clip.frames[25])
    assert shown[60:130, 30:130].mean(axis=(0, 1)) == pytest.approx([200, 100, 50], abs=6)
    assert shown[60:130, 190:290].mean(axis=(0, 1)) == pytest.approx([0, 0, 0], abs=4)
    assert "alpha_over_black" in clip.treatments


@pytest.mark.parametrize("way", WAYS)
def test_interlaced_pictures_are_not_combed(come, way):
    clip = come("interlaced.mp4", (0, 2), way)
    assert isinstance(clip, Decoded), clip
    combed = []
    for jpeg in clip.frames[5:45]:
        rows = picture(jpeg).mean(axis=2)
        # Lines of one field are alike where those of two are not.
        combed.append(np.abs(rows[1:-1] - (rows[:-2] + rows[2:]) / 2).mean())
    assert max(combed) < 1.5
    assert "deinterlaced" in clip.treatments


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "span"), listed(COMPOSED))
def test_a_composed_film_is_what_its_marks_say(folder, come, ffmpeg_program, name, span, way):
    told = truth.read(folder / "composed" / name, ffmpeg_program)
    judged = verdict.judge(told, in_us(span), come(name, span, way))
    assert judged.kind in (verdict.Kind.RIGHT, verdict.Kind.LACKING), judged.detail
