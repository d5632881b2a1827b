"""Pictures of streams that are not plain, from real films to frames."""

import io
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from mbt.pipeline import ffmpeg, probe
from mbt.pipeline.decode import decode

PATCH = (200, 100, 50)
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1")


def make(path, source: str, *words: str) -> str:
    command = [ffmpeg.executable(), "-v", "error", "-y", "-f", "lavfi", "-i", source, *SOUND, *words, str(path)]
    subprocess.run(command, check=True)
    return str(path)


def frames(path: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """(frames, height, width, 3), and the treatments."""
    decoded = decode(path, 0, 1_000_000, program=ffmpeg.executable())
    return np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in decoded.frames]), decoded.treatments


def patch(size: str) -> str:
    return f"color=c=0x{PATCH[0]:02x}{PATCH[1]:02x}{PATCH[2]:02x}:s={size}:r=25:d=1,format=gbrp"


@pytest.mark.parametrize(
    ("size", "matrix", "treatments"),
    [("320x240", "bt601", ()), ("1280x720", "bt709", ("untagged_hd",)), ("720x1280", "bt709", ("untagged_hd",))],
)
def test_untagged_pictures_keep_their_colours(tmp_path, size, matrix, treatments):
    untagged = f"scale=out_color_matrix={matrix},format=yuv420p,setparams=colorspace=unknown"
    film = make(tmp_path / "film.mp4", patch(size), "-vf", untagged, "-crf", "4")
    seen, done = frames(film)
    assert np.abs(seen[10, 50, 50].astype(int) - PATCH).max() <= 3
    assert done == treatments


@pytest.mark.parametrize(
    "coding",
    [
        ("film.webm", "-c:v", "libvpx-vp9", "-pix_fmt", "yuva420p"),
        ("film.webm", "-c:v", "libvpx", "-pix_fmt", "yuva420p", "-auto-alt-ref", "0"),
        ("film.mov", "-c:v", "qtrle", "-pix_fmt", "argb"),
        ("film.mov", "-c:v", "prores_ks", "-pix_fmt", "yuva444p10le"),
        ("film.mkv", "-c:v", "ffv1", "-pix_fmt", "yuva420p"),
    ],
    ids=lambda coding: coding[2],
)
def test_what_is_transparent_is_black(tmp_path, coding):
    name, *words = coding
    film = make(
        tmp_path / name,
        # Green that nobody shall see, under a right half without opacity.
        "color=c=0x00ff00:s=160x96:r=25:d=1,format=rgba,geq=r=200*lt(X\\,80):g=if(lt(X\\,80)\\,100\\,255):b=50*lt(X\\,80)"
        ":a=255*lt(X\\,80)",
        *words,
    )
    seen, done = frames(film)
    assert done == ("alpha_over_black",)
    assert np.abs(seen[10, 48, 40].astype(int) - PATCH).max() <= 8
    assert seen[10, 48, 120].max() <= 8


@pytest.mark.parametrize(
    ("name", "first", "words"),
    [
        ("film.mp4", "tff", ("-c:v", "libx264", "-flags", "+ildct+ilme", "-x264opts", "tff=1")),
        ("film.mp4", "bff", ("-c:v", "libx264", "-flags", "+ildct+ilme", "-x264opts", "bff=1")),
        ("film.ts", "tff", ("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2")),
        ("film.mpg", "bff", ("-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", "2")),
    ],
)
def test_fields_are_put_together_without_combs(tmp_path, name, first, words):
    """A bar that runs: between two lines of a frame that is woven of fields it stands at two places."""
    parity = {"tff": "tff", "bff": "bff"}[first]
    source = (
        "color=c=black:s=320x192:r=50:d=1,geq=lum=235*between(X\\,20+4*N\\,60+4*N):cb=128:cr=128"
        f",tinterlace=mode={'interleave_top' if first == 'tff' else 'interleave_bottom'},setfield={parity}"
    )
    seen, done = frames(make(tmp_path / name, source, *words))
    assert done == ("deinterlaced",)
    lines = seen[5:20].mean(axis=-1)
    # A comb is a line that differs from both its neighbours, which are alike.
    comb = np.abs(2 * lines[:, 1:-1] - lines[:, :-2] - lines[:, 2:]).mean()
    assert comb < 1.0, comb


def test_progressive_films_are_left_alone(tmp_path):
    _, done = frames(make(tmp_path / "film.mp4", "testsrc2=s=320x192:r=25:d=1", "-pix_fmt", "yuv420p"))
    assert done == ()


# All code points of ITU-T H.273's tables that ffmpeg knows, the reserved ones between them, and some beyond.
CODES = {
    "matrix_coefficients": [*range(19), 255],
    "colour_primaries": [*range(13), 22, 255],
    "transfer_characteristics": [*range(20), 255],
    "video_full_range_flag": [0, 1],
}


UNTAGGED = "matrix_coefficients=2"


def tagged(folder, size: str, matrix: str, *codes: str) -> str:
    """A film of which only the tags are rewritten."""
    coded = f"scale=out_color_matrix={matrix}:out_range=tv,format=yuv420p"
    film = make(folder / "film.mp4", patch(size), "-vf", coded, "-crf", "4", "-t", "0.2")
    words = ["-c", "copy", "-bsf:v", f"h264_metadata={':'.join(codes)}", str(folder / "tagged.mp4")]
    subprocess.run([ffmpeg.executable(), "-v", "error", "-y", "-i", film, *words], check=True)
    return str(folder / "tagged.mp4")


@pytest.mark.parametrize(("name", "code"), [(name, code) for name, codes in CODES.items() for code in codes])
def test_no_tag_of_colours_loses_a_clip(tmp_path, name, code):
    path = tagged(tmp_path, "64x48", "bt601", f"{name}={code}")
    assert len(decode(path, 0, 200_000, program=ffmpeg.executable()).frames) == 5
    assert len(probe.probe(path, 0, 200_000, ffmpeg.executable()).thumbnails) == 5


@pytest.mark.parametrize(
    ("size", "matrix", "codes", "treatments"),
    [
        ("320x240", "bt601", ("matrix_coefficients=8",), ("unknown_colors",)),
        ("1280x720", "bt709", ("matrix_coefficients=8",), ("unknown_colors",)),
        ("320x240", "bt601", ("matrix_coefficients=0",), ("unknown_colors",)),
        ("320x240", "bt2020", ("matrix_coefficients=10",), ("unknown_colors",)),
        ("320x240", "bt2020", ("matrix_coefficients=14",), ("unknown_colors",)),
        ("320x240", "bt601", ("matrix_coefficients=6", "transfer_characteristics=9"), ("unknown_colors",)),
        ("320x240", "bt709", ("matrix_coefficients=1", "transfer_characteristics=10"), ("unknown_colors",)),
        (
            "1280x720",
            "bt709",
            ("matrix_coefficients=2", "transfer_characteristics=10"),
            ("unknown_colors", "untagged_hd"),
        ),
    ],
)
def test_colours_that_the_scaler_cannot_read_are_the_nearest_that_it_can(tmp_path, size, matrix, codes, treatments):
    seen, done = frames(tagged(tmp_path, size, matrix, *codes))
    assert np.abs(seen[2, 50, 50].astype(int) - PATCH).max() <= 3
    assert done == treatments


@pytest.mark.parametrize("pix_fmt", ["gray", "bgr0", "gbrp"])
@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_a_matrix_that_pictures_without_one_name_is_ignored(tmp_path, pix_fmt, matrix):
    told = f"format={pix_fmt},setparams=colorspace={'smpte170m' if pix_fmt == 'gray' else 'gbr'}"
    path = make(tmp_path / "film.mkv", patch("320x240"), "-vf", told, "-c:v", "ffv1", "-t", "0.2")
    content = (tmp_path / "film.mkv").read_bytes()
    named = re.sub(rb"(?<=\x55\xb1\x81)[\x00\x06]", bytes([matrix]), content, count=1)
    (tmp_path / "film.mkv").write_bytes(named)
    seen, done = frames(path)
    expected = PATCH if pix_fmt != "gray" else (124, 124, 124)
    assert np.abs(seen[2, 50, 50].astype(int) - expected).max() <= 3
    assert named != content and done == ("unknown_colors",)


@pytest.mark.parametrize("code", ["matrix_coefficients=8", "transfer_characteristics=9"])
@pytest.mark.parametrize(("start_us", "turn"), [(0, "later"), (0, "earlier"), (500_000, "later")])
def test_a_film_may_change_to_colours_that_the_scaler_refuses(tmp_path, code, start_us, turn):
    parts = []
    for number, tag in enumerate(
        ["matrix_coefficients=6", code] if turn == "later" else [code, "matrix_coefficients=6"]
    ):
        coding = ["-c:v", "libx264", "-vf", "scale=out_color_matrix=bt601,format=yuv420p", "-crf", "4", "-bf", "0"]
        tagged = ["-bsf:v", f"h264_metadata={tag}", "-f", "mpegts"]
        parts.append(make(tmp_path / f"{number}.ts", patch("320x240"), *coding, *tagged))
    path = tmp_path / "film.ts"
    path.write_bytes(b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(2)))
    decoded = decode(str(path), start_us, 1_900_000, program=ffmpeg.executable())
    seen = np.stack([np.asarray(Image.open(io.BytesIO(jpeg))) for jpeg in decoded.frames]).astype(int)
    assert len(seen) == round((1.9 - start_us / 1e6) * 25) and decoded.treatments == ("unknown_colors",)
    assert np.abs(seen[[2, -3], 50, 50] - PATCH).max() <= 3
    assert len(probe.probe(str(path), start_us, 1_900_000, ffmpeg.executable()).thumbnails) == len(seen)
