"""Training a run. Everything that can be wrong is found before anything is compiled."""

import contextlib
import pathlib
import sys

from ml_collections import ConfigDict

from mbt.schemas.manifest import Manifest
from mbt.train import config as config_lib
from mbt.train import preflight
from mbt.train import workdir as workdir_lib
from mbt.train.errors import UsageError
from mbt.train.processes import Processes
from mbt.train.profile import Steps
from mbt.train.snapshot import Records, find_split, load_manifest, open_records


def train(
    config_name: str,
    overrides: list[str],
    workdir: pathlib.Path,
    *,
    profile: Steps | None = None,
    processes: Processes | None = None,
) -> dict:
    """Trains, or goes on with a run that was stopped; a finished run is only reported.

    Args:
      config_name: path or name of a config.
      overrides: `--config.KEY=VALUE` flags.
      workdir: of the run.
      profile: steps to trace.
      processes: how to find the other processes of the run; None where there are none.

    Returns:
      The result, which is also in `result.json`.
    """
    given = config_lib.load_config(config_name, overrides)
    config_lib.check(given)
    preflight.check_best(given)
    old = workdir_lib.read_config(workdir)
    manifest = _manifest_for(given, old)
    find_split(manifest, "config.data.train_split", given.data.train_split)
    config = config_lib.resolve(given, manifest)
    config_lib.model_config(config)  # refuses a model that cannot be
    config.dataset = preflight.identify(config.data.root, manifest)
    if old is not None:
        preflight.check_dataset(old, config.dataset, config.data.root, same_snapshot=True)
        workdir_lib.check_same_run(workdir, old, config)
    if old is not None and (result := workdir_lib.read_result(workdir)):
        print(f"{workdir}: already trained; delete it or give another --workdir to train again", file=sys.stderr)
        return result
    train_records = open_records(config, manifest, "config.data.train_split", config.data.train_split)
    eval_records = None
    if config.data.eval_split:
        eval_records = open_records(config, manifest, "config.data.eval_split", config.data.eval_split)
    if processes is not None:
        processes.join()
    if old is None and config.init.vit:
        _refuse_unfit_weights(config)
    with _held(workdir, config):
        return _run(config, workdir, train_records, eval_records, profile)
