"""The config of a run that goes on: what is asked for now, beside what the run began with."""

import copy
import sys

from ml_collections import ConfigDict

from mbt.train import config as config_lib
from mbt.train import old_configs, source_run


def resumed(config_name: str, given: ConfigDict, old: ConfigDict, *, tell: bool = True) -> ConfigDict:
    """The config with which a run goes on, perhaps one of an older version.

    It has from the old one what an older version did otherwise, what the data decided when the run began, and the step
    of the run that it started from.

    Args:
      config_name: as given.
      given: the config as given, its values of the right types.
      old: the run's.
      tell: whether to say what is kept of an older version.

    Raises:
      UsageError: it names a checkpoint to start from that is another one, and not there.
    """
    given, kept = old_configs.resumed(given, old, config_lib.default_config())
    own_name = config_lib.own_name(config_name)
    if changed := old_configs.CHANGED.get(own_name):
        given, more = old_configs.resumed(given, old, config_lib.load_config(own_name, []), changed)
        kept += more
    for key in kept if tell else ():
        print(f"this run goes on with {key}={config_lib.value_of(given, key)}, as it began", file=sys.stderr)
    given = config_lib.as_decided(copy.deepcopy(given), old)
    if given.init.source:
        given.init.source = source_run.frozen(given.init.source, old.init.source)
    return given
