"""Size, error and CPU time of the frames at several JPEG qualities: what `JPEG_QSCALE` was chosen from.

Error is against the same frames without JPEG (raw 4:2:0 through the same filters); and after what training does to a
frame, a crop resized to 224 x 224, so also against that.

    python benchmarks/jpeg_quality.py FILE...
"""

import io
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from mbt.pipeline import decode, ffmpeg
from mbt.pipeline.decode import split_jpegs

SECONDS = 3
QSCALES = (1, 2, 3, 4, 5, 7, 10)


def main() -> None:
    files = sys.argv[1:]
    if not files:
        sys.exit("usage: python benchmarks/jpeg_quality.py FILE...")
    print(f"{len(files)} files, {SECONDS} s of each")
    print("| qscale | KB/frame | PSNR dB | PSNR of the 224 x 224 crop dB | CPU ms/frame |\n|---|---|---|---|---|")
    references = [frames(file, None)[0] for file in files]
    for qscale in QSCALES:
        sizes, errors, crop_errors, seconds, count = 0, [], [], 0.0, 0
        for file, reference in zip(files, references, strict=True):
            pictures, size, cpu = frames(file, qscale)
            sizes, seconds, count = sizes + size, seconds + cpu, count + len(pictures)
            for ours, exact in zip(pictures[::10], reference[::10], strict=True):
                errors.append(psnr(ours, exact))
                crop_errors.append(psnr(crop(ours), crop(exact)))
        row = (sizes / count / 1000, np.mean(errors), np.mean(crop_errors), 1000 * seconds / count)
        print(f"| {qscale} | " + " | ".join(f"{value:.1f}" for value in row) + " |")


def frames(file: str, qscale: int | None) -> tuple[list[Image.Image], int, float]:
    """Decoded frames, their size in bytes, CPU seconds; with no qscale, the frames before JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "frames"
        words = decode.arguments(os.path.abspath(file), 0, SECONDS * 1_000_000)
        place = words.index("-q:v") + 1
        if qscale is None:
            words[words.index("image2pipe")], words[words.index("mjpeg")] = "image2pipe", "png"
        else:
            words[place] = str(qscale)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        command = [ffmpeg.executable(), "-y", *(word.format(str(target), *["/dev/null"] * 3) for word in words)]
        subprocess.run(command, check=True, capture_output=True)
        cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        data = target.read_bytes()
    parts = split_pngs(data) if qscale is None else split_jpegs(data)
    return [Image.open(io.BytesIO(part)).convert("RGB") for part in parts], len(data), cpu


def split_pngs(data: bytes) -> list[bytes]:
    start = b"\x89PNG\r\n\x1a\n"
    return [start + part for part in data.split(start)[1:]]


def crop(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    return picture.crop((0, 0, side, side)).resize((224, 224), Image.Resampling.BILINEAR)


def psnr(one: Image.Image, other: Image.Image) -> float:
    error = np.mean((np.asarray(one, float) - np.asarray(other, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


if __name__ == "__main__":
    main()
