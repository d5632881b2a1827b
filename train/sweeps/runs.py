"""The runs of a sweep: one `mbt-train train` for each point and seed, all of them checked before the first."""

import dataclasses
import pathlib
import shlex
from typing import Any

from ml_collections import ConfigDict

from mbt.schemas.manifest import Manifest
from mbt.train import config as config_lib
from mbt.train import source_run
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.resuming import resumed
from mbt.train.snapshot import find_split, load_manifest
from mbt.train.sweeps.ablations import Ablation, Point


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
      point: of the ablation.
      seed: of the training.
      workdir: of the run.
      words: arguments of `mbt-train`.
    """

    point: Point
    seed: int
    workdir: pathlib.Path
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """As it is typed."""
        return shlex.join(["mbt-train", *self.words])

    @property
    def title(self) -> str:
        """For a line of progress."""
        return f"{self.point.line}, {_x_text(self.point)}, seed {self.seed}"

    def result(self) -> dict | None:
        """What it ended with; None as long as it has not."""
        return workdir_lib.read_result(self.workdir)


def plan(ablation: Ablation, config_name: str, overrides: list[str], folder: pathlib.Path, seeds: int) -> list[Run]:
    """All runs of a sweep, point by point, and seed by seed in each.

    All are on one snapshot: where the config says "latest", the one that the runs in the folder began with, or the one
    that is the latest now.

    Args:
      ablation: which models.
      config_name: path or name of the config that they change.
      overrides: `--config.KEY=VALUE` flags that change it beforehand.
      folder: of the sweep.
      seeds: how many trainings of each; they count from the config's own.

    Raises:
      UsageError: a config, the dataset, or a run that is in the folder does not fit.
    """
    given = config_lib.load_config(config_name, overrides)
    config_lib.check_types(given)  # the rest is checked of each run, with what an older version did otherwise
    if len(given.modalities) == 1:
        raise UsageError(f"config.modalities={given.modalities!r}: a sweep compares how two are fused; leave it out")
    datasets = _Datasets(given.data.snapshot, folder)
    runs = []
    for point in ablation.points(given, lambda: datasets.clips(given)):
        manifest = datasets.manifest(point.changes.get("data.root", given.data.root))
        for seed in range(given.seed, given.seed + seeds):
            changes = point.changes | {"seed": seed, "data.snapshot": manifest.snapshot}
            flags = [*overrides, *(f"--config.{key}={value}" for key, value in changes.items())]
            workdir = (
                folder
                / f"{point.line.replace(' ', '-')}-{(point.folder or _x_text(point)).replace(' ', '-')}"
                / f"seed-{seed}"
            )
            name = point.config or config_name
            words = ("train", f"--config={name}", f"--workdir={workdir}", *flags)
            _check(name, flags, workdir, manifest)
            runs.append(Run(point=point, seed=seed, workdir=workdir, words=words))
    return runs


class _Datasets:
    """The snapshots of a sweep's datasets, by their roots: each the one that its first run began with."""

    def __init__(self, snapshot: str, folder: pathlib.Path):
        self._snapshot = snapshot
        self._folder = folder
        self._manifests: dict[str, Manifest] = {}

    def manifest(self, root: str) -> Manifest:
        """Of a dataset."""
        if root not in self._manifests:
            self._manifests[root] = load_manifest(root, self._name(root))
        return self._manifests[root]

    def clips(self, given: ConfigDict) -> int:
        """How many a config has to train on."""
        manifest = self.manifest(given.data.root)
        return find_split(manifest, "config.data.train_split", given.data.train_split).num_records

    def _name(self, root: str) -> str:
        if self._snapshot != "latest":
            return self._snapshot
        begun: dict[str, str] = {}
        for path in sorted(self._folder.glob(f"*/*/{workdir_lib.CONFIG_FILE}")):
            if (old := workdir_lib.read_config(path.parent)) is not None:
                begun.setdefault(old.data.root, old.data.snapshot)
        if len(set(begun.values())) == 1 and not self._manifests:
            return next(iter(begun.values()))  # of the one dataset, which may have been moved since
        return begun.get(root, "latest")


def _check(config_name: str, flags: list[str], workdir: pathlib.Path, manifest: Manifest) -> None:
    """Refuses what `mbt-train train` would refuse at once."""
    given = config_lib.load_config(config_name, flags)
    config_lib.check_types(given)
    old = workdir_lib.read_config(workdir)
    if old is not None:
        given = resumed(config_name, given, old, tell=False)
    config_lib.check(given)
    find_split(manifest, "config.data.train_split", given.data.train_split)
    find_split(manifest, "config.data.eval_split", given.data.eval_split)
    config = config_lib.resolve(given, manifest)
    config_lib.model_config(config)
    if old is None:
        config_lib.check_effects(given)
        if config.init.source:
            source_run.frozen(config.init.source)  # refuses one that is not there
    else:
        # What a run notes beside its config, such as the dataset's version, it compares itself.
        workdir_lib.check_same_run(workdir, ConfigDict({key: old[key] for key in config if key in old}), config)


def _x_text(point: Point) -> str:
    value: Any = point.x
    return value if isinstance(value, str) else f"{value:g}"
