"""What the search for a clip's look and sound takes of memory, and what it makes of a file that ffmpeg cannot bear."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mbt.pipeline import extent
from mbt.pipeline.purge import evidence, traces
from mbt.pipeline.purge.traces import Look, Traces

pytestmark = pytest.mark.quick

MOST_BYTES = 256 << 20


def test_memory_does_not_grow_with_clips_times_the_length_of_a_film():
    numbers = np.random.default_rng(0)
    film = Look(
        numbers.integers(0, 256, (8_000, 256)).astype(np.float32),
        numbers.integers(-9000, 9000, 16_000 * 60).astype(np.float32),
    )
    others = numbers.integers(0, 256, (6_000, 256)).astype(np.float32)
    wanted = Traces.of(Look(film.frames[:10], film.sound[: 16_000 * 2]), [])
    wanted += Traces(others, np.repeat(-wanted.sounds[:1], 10_000, axis=0))
    tracemalloc.start()
    try:
        found = wanted.found_in(film)
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    assert found == (10, 17)


@pytest.fixture(params=["kill -SEGV $$", "exit 244"], ids=["crash", "memory"])
def program(request, tmp_path) -> str:
    """An ffmpeg that a file makes end so."""
    path = tmp_path / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{request.param}\n")
    path.chmod(0o755)
    return str(path)


def test_a_file_on_which_ffmpeg_crashes_may_hold_anything_and_stops_no_purge(program, tmp_path: Path):
    path = str(tmp_path / "film.mp4")
    Path(path).write_bytes(b"film")
    assert extent.of(path, program) is None and extent.overlaps(None, 0, 1)
    assert list(evidence.packets(path, "V", 0, 1, program)) == []
    assert traces.look(path, program) is None


@pytest.mark.parametrize("tag", ["colorspace=ycgco", "color_trc=log100"])
def test_a_film_whose_colours_the_scaler_refuses_is_looked_at(make_media, ffmpeg_program, tmp_path, tag):
    film = make_media(tmp_path / "film.mp4", options=("-vf", f"format=yuv420p,setparams={tag}"))
    seen = traces.look(str(film), ffmpeg_program)
    assert seen is not None and len(seen.frames) == 25
