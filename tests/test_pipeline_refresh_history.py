"""After every refresh of a random history the shards are, byte for byte, those of a build from nothing in that state.

Through the command, from the annotations on: what a server holds today, what the ledger knows, what is kept.
"""

import dataclasses
import shutil
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from media_server import PRIVATE, MediaServer, serving

from mbt.pipeline.main import main
from mbt.schemas.manifest import Manifest

ONLINE = [f"online-{number}" for number in range(4)]
LOCAL = [f"local-{number}" for number in range(2)]
ASK_ALL = ["--older_than=0s", "--recheck=ok,gone,transient,restricted,blocked,unusable"]
UNUSABLE = 2  # the medium that can never be a clip


@dataclasses.dataclass(frozen=True)
class State:
    """An annotated clip, on one day."""

    medium: int
    there: bool
    start: float
    labels: str


@dataclasses.dataclass(frozen=True)
class Day:
    """What is annotated on a day, and what `--removed` says."""

    clips: dict[str, State]
    removed: str


STATES = st.builds(
    State,
    medium=st.sampled_from([0, 0, 1, UNUSABLE]),
    there=st.sampled_from([True, True, False]),
    start=st.sampled_from([0, 0.04]),
    labels=st.sampled_from(["a", "b", "c;a"]),
)
DAYS = st.builds(
    Day,
    clips=st.dictionaries(st.sampled_from(ONLINE + LOCAL), STATES, min_size=1, max_size=len(ONLINE + LOCAL)),
    removed=st.sampled_from(["keep", "drop"]),
)


@pytest.fixture(scope="module")
def films(make_media, tmp_path_factory) -> list[bytes]:
    """Two clips of a fifth of a second, and what is none."""
    folder = tmp_path_factory.mktemp("films")
    made = [make_media(folder / f"{n}.mp4", seconds=0.2, audio=f"sine=frequency={300 * n + 300}") for n in range(2)]
    return [*(path.read_bytes() for path in made), b"not a clip"]


@pytest.fixture(autouse=True)
def handlers():
    """The command sets handlers of signals; they end with it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@dataclasses.dataclass(frozen=True)
class World:
    """What the commands see: a server, a folder of own videos, annotations."""

    folder: Path
    server: MediaServer
    films: list[bytes]

    def turn(self, day: Day) -> None:
        """Makes it that day."""
        self.server.files.clear()
        shutil.rmtree(self.folder / "own", ignore_errors=True)
        (self.folder / "own").mkdir(parents=True)
        (self.folder / "own/notes.txt").touch()  # an empty folder counts as a disk that is not mounted
        (self.folder / "own/always.mp4").write_bytes(self.films[0])  # no snapshot is without a record
        lines = ["video_path,start,end,label,id", "always.mp4,0,0.16,a,always"]
        for clip_id, state in day.clips.items():
            film = self.films[state.medium]
            name = f"{clip_id}-{state.medium}.mp4"
            if clip_id in LOCAL:  # another file in the same place
                path = f"{clip_id}.mp4"
                if state.there:
                    (self.folder / "own" / path).write_bytes(film)
            else:  # media that are fetched are another video where the annotations say so
                path = f"{self.server.url}/{name}"
                if state.there:
                    self.server.files[name] = film
            lines.append(f"{path},{state.start},0.16,{state.labels},{clip_id}")
        (self.folder / "clips.csv").write_text("\n".join(lines) + "\n")

    def run(self, command: str, output: str, *words: str) -> Manifest:
        """Runs a command in this process; returns the newest snapshot."""
        files = [f"--annotations={self.folder}/clips.csv", f"--media_root={self.folder}/own"]
        assert main([command, *files, "--allow_loss=1", f"--output={self.folder / output}", PRIVATE, *words]) == 0
        read = [Manifest.from_json(path.read_text()) for path in (self.folder / output).glob("snapshots/*/*.json")]
        return max(read, key=lambda manifest: manifest.created)

    def from_nothing(self, day: Day) -> Manifest:
        """A build in a folder without shards; what is dropped depends on the world alone, what is kept on the past."""
        (self.folder / "anew").mkdir()
        shutil.copy(self.folder / "out/dataset.json", self.folder / "anew")
        for name in ("ledger", "media") if day.removed == "keep" else ():
            if (self.folder / "out" / name).exists():
                shutil.copytree(self.folder / "out" / name, self.folder / "anew" / name)
        return self.run("build", "anew")

    def shards(self, output: str, manifest: Manifest) -> dict[str, bytes]:
        """Content of every file that a snapshot names."""
        named = [shard for split in manifest.splits.values() for shard in split.shards]
        paths = [path for shard in named for path in (shard.path, shard.index_path)]
        return {path: (self.folder / output / path).read_bytes() for path in paths}


def check(world: World, day: Day, num_shards: int) -> None:
    world.turn(day)
    words = [*ASK_ALL, f"--removed={day.removed}", f"--num_shards={num_shards}"]
    refreshed = world.run("refresh", "out", *words)
    anew = world.from_nothing(day)
    assert refreshed.splits == anew.splits
    assert world.shards("out", refreshed) == world.shards("anew", anew)
    shutil.rmtree(world.folder / "anew")


@pytest.mark.parametrize("examples", [2, pytest.param(25, marks=pytest.mark.slow)])
def test_after_every_refresh_of_a_history(server, films, tmp_path_factory, examples):
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(history=st.lists(DAYS, min_size=3, max_size=4), num_shards=st.integers(1, 16))
    def histories(history: list[Day], num_shards: int) -> None:
        world = World(tmp_path_factory.mktemp("world"), server, films)
        for day in history:
            check(world, day, num_shards)
        shutil.rmtree(world.folder)

    histories()
