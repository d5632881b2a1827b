"""Where a stream changes inside a file: a span that comes after is decoded as its own first picture needs it."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from mbt.pipeline import probe
from mbt.pipeline.cut import cut
from mbt.pipeline.decode import Decoded, decode
from mbt.pipeline.passes import Span
from mbt.schemas.clip import MICROSECONDS

SECONDS = 4  # of each part
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "2", "-g", "25")
FIELDS = ("-vf", "setfield=tff", *MPEG2, "-flags", "+ildct+ilme")
HEVC = ("-c:v", "libx265", "-g", "25", "-pix_fmt", "yuv420p10le", "-preset", "ultrafast", "-x265-params")
SDR = (*HEVC, "log-level=error")
PQ = (*HEVC, "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc")


@pytest.fixture(scope="module")
def make(ffmpeg_program, tmp_path_factory):
    """make(suffix, size, ...): a part of a film, which is the same in each size; made once."""
    folder, made = tmp_path_factory.mktemp("parts"), {}

    def make(suffix: str, size: str, *options: str):
        path = made.setdefault((suffix, size, options), folder / f"{len(made)}{suffix}")
        if not path.exists():
            film = f"testsrc2=s=640x480:r=25:d={SECONDS},scale={size.replace('x', ':')},setsar=1"
            words = ["-f", "lavfi", "-i", film, "-f", "lavfi", "-i", f"sine=d={SECONDS}"]
            sound = ["-an"] if suffix == ".h264" else ["-c:a", "mp2"]
            run(ffmpeg_program, *words, *sound, *options, path)
        return path

    return make


def run(program: str, *words) -> None:
    subprocess.run([program, "-v", "error", "-y", *map(str, words)], check=True, stdin=subprocess.DEVNULL)


def joined(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def clip(path, start_s: float, end_s: float, program: str) -> Decoded:
    return decode(str(path), round(start_s * MICROSECONDS), round(end_s * MICROSECONDS), program=program)


def pixels(made: Decoded, number: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(made.frames[number])).convert("RGB"), np.float64)


def is_like(made: Decoded, other: Decoded, shift: int = 0) -> bool:
    """Whether frames look alike, number for number; coding leaves a little."""
    numbers = range(0, len(other.frames) - abs(shift), 5)
    return all(np.abs(pixels(made, number + shift) - pixels(other, number)).mean() < 3 for number in numbers)


@pytest.mark.parametrize(
    ("before", "after", "treatments"),
    [
        (("640x480", *MPEG2), ("1280x720", *MPEG2), ("untagged_hd",)),
        (("1280x720", *MPEG2), ("640x480", *MPEG2), ()),
        (("352x288", *FIELDS), ("704x576", *FIELDS), ("deinterlaced",)),
        (("704x576", *FIELDS), ("480x576", *FIELDS), ("deinterlaced",)),
        (("352x288", *MPEG2), ("352x288", *FIELDS), ("deinterlaced",)),
        (("640x360", *SDR), ("640x360", *PQ), ("tone_mapped",)),
        (("640x360", *PQ), ("640x360", *SDR), ()),
        (("352x288", *FIELDS), ("640x360", *PQ), ("tone_mapped",)),
    ],
)
def test_a_span_after_a_change_is_as_if_its_part_stood_alone(make, ffmpeg_program, tmp_path, before, after, treatments):
    parts = make(".ts", *before), make(".ts", *after)
    film = joined(tmp_path / "film.ts", *parts)
    alone = clip(parts[1], 1, 3, ffmpeg_program)
    made = clip(film, SECONDS + 1, SECONDS + 3, ffmpeg_program)
    assert (made.width, made.height, made.treatments) == (alone.width, alone.height, alone.treatments)
    assert made.treatments == treatments
    assert any(is_like(made, alone, shift) for shift in (-1, 0, 1))  # where the parts are joined is the muxer's choice


@pytest.mark.parametrize("turns", [("16/15", "64/45"), ("64/45", "16/15"), ("1/1", "64/45")])
def test_a_broadcast_that_changes_the_shape_of_its_pixels(make, ffmpeg_program, tmp_path, turns):
    shaped = [(*MPEG2, "-vf", f"setsar={turn}") for turn in turns]
    parts = [make(".ts", "720x576", *words) for words in shaped]
    film = joined(tmp_path / "film.ts", *parts)
    widths = {"16/15": 341, "64/45": 455, "1/1": 320}
    for start_s in (1.5, 3, 4.5, 6):
        made = clip(film, start_s, start_s + 1.5, ffmpeg_program)
        assert (made.width, made.height) == (widths[turns[start_s >= SECONDS]], 256), start_s


@pytest.mark.parametrize(("before", "after"), [("16/15", "64/45"), ("64/45", "16/15"), ("1/1", "1/1")])
@pytest.mark.parametrize("start_s", [3.5, 4.2])
def test_what_a_store_keeps_of_a_film_whose_pixels_change_gives_the_same_clip(
    make, ffmpeg_program, tmp_path, before, after, start_s
):
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0", "-vf")
    parts = [make(".h264", "352x288", *coded, f"setsar={turn}") for turn in (before, after)]
    words = ["-r", "25", "-i", joined(tmp_path / "all.h264", *parts), "-f", "lavfi", "-i", f"sine=d={2 * SECONDS}"]
    run(ffmpeg_program, *words, "-c:v", "copy", "-c:a", "mp2", tmp_path / "film.mkv")
    film = tmp_path / "film.ts"
    run(ffmpeg_program, "-i", tmp_path / "film.mkv", "-c", "copy", film)
    span = Span(path=str(film), start_us=round(start_s * MICROSECONDS), duration_us=2 * MICROSECONDS)
    whole = probe.probe(span.path, span.start_us, span.start_us + span.duration_us, ffmpeg_program)
    made = cut(span, whole, str(tmp_path / "cut.mp4"), ffmpeg_program, 60)
    if made is None:  # then the film is kept whole
        assert before != after
        return
    ours = clip(film, start_s, start_s + 2, ffmpeg_program)
    kept = clip(
        made.path, start_s - made.zero_us / MICROSECONDS, start_s + 2 - made.zero_us / MICROSECONDS, ffmpeg_program
    )
    assert (kept.width, kept.height, kept.treatments) == (ours.width, ours.height, ours.treatments)
    assert any(is_like(kept, ours, shift) for shift in (-1, 0, 1))


@pytest.mark.parametrize(("before", "after"), [("352x288", "704x576"), ("704x576", "352x288")])
def test_fields_are_put_together_across_a_change_of_size(make, ffmpeg_program, tmp_path, before, after):
    parts = make(".ts", before, *FIELDS), make(".ts", after, *FIELDS)
    made = clip(joined(tmp_path / "film.ts", *parts), SECONDS - 2, SECONDS + 2, ffmpeg_program)
    alone = [clip(parts[0], 2, 4, ffmpeg_program), clip(parts[1], 0, 2, ffmpeg_program)]
    assert (made.width, made.height) == (alone[0].width, alone[0].height) and made.treatments == ("deinterlaced",)
    for number in (10, 40):
        assert np.abs(pixels(made, number) - pixels(alone[0], number)).mean() < 4
        resized = Image.fromarray(pixels(alone[1], number).astype(np.uint8)).resize((made.width, made.height))
        assert np.abs(pixels(made, 2 * 25 + number) - np.asarray(resized, np.float64)).mean() < 8


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("span_s", [(1, 3), (3, 6), (5, 7)])
def test_a_film_that_is_turned_and_changes_its_size_loses_no_edge(make, ffmpeg_program, tmp_path, degrees, span_s):
    """The sound counts the key frames here: there is one at each part's beginning alone."""
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "500", "-bf", "0")
    parts = make(".h264", "128x192", *coded), make(".h264", "128x320", *coded)
    words = ["-r", "25", "-i", joined(tmp_path / "all.h264", *parts), "-f", "lavfi", "-i", f"sine=d={2 * SECONDS}"]
    run(ffmpeg_program, *words, "-c:v", "copy", tmp_path / "flat.mp4")
    run(
        ffmpeg_program, "-display_rotation", degrees, "-i", tmp_path / "flat.mp4", "-c", "copy", tmp_path / "turned.mp4"
    )
    flat, turned = (clip(tmp_path / name, *span_s, ffmpeg_program) for name in ("flat.mp4", "turned.mp4"))
    quarters = degrees // 90
    assert (turned.width, turned.height) == ((flat.width, flat.height), (flat.height, flat.width))[quarters % 2]
    for number in range(0, len(flat.frames), 7):
        assert np.abs(pixels(turned, number) - np.rot90(pixels(flat, number), quarters)).mean() < 3


def test_a_size_with_another_shape_in_an_index_is_the_shape_at_the_start(make, ffmpeg_program, tmp_path):
    coded = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "500", "-bf", "0")
    parts = make(".h264", "640x480", *coded), make(".h264", "1280x720", *coded)
    words = ["-r", "25", "-i", joined(tmp_path / "all.h264", *parts), "-f", "lavfi", "-i", f"sine=d={2 * SECONDS}"]
    run(ffmpeg_program, *words, "-c:v", "copy", tmp_path / "film.mkv")
    sizes = [clip(tmp_path / "film.mkv", *span, ffmpeg_program) for span in ((1, 3), (3, 6), (4.04, 6), (5, 7))]
    assert [(made.width, made.height) for made in sizes] == [(341, 256), (341, 256), (455, 256), (455, 256)]
