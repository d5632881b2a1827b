"""`mbt-data export`."""

import argparse

from mbt.pipeline.commands import flags, reading

NAME = "export"
HELP = "lay a snapshot out as other readers expect it"
DESCRIPTION = """\
Writes a snapshot's shards into a new folder under the names that Scenic and DMVR look for, train-00000-of-00128 and
so on. The records are the same bytes. Beside them:
  dataset_configs.json  base_dir, tables, examples_per_subset, num_classes, spec_mean and spec_stddev, by the names
                        of Scenic's config.dataset_configs; written last
  labels.csv            each label's index, name, and records per split

--link=hard takes no space and keeps a shard that the dataset deletes, but DIR must be on the same file system.
A symbolic link leads nowhere once the dataset deletes the shard. Copies are checked against their checksums.
A clip that was taken down is still in hard links and copies: delete the export, and export again.
"""
EPILOG = """\
examples:
  mbt-data export --layout=scenic scenic --output=dataset
  mbt-data export --layout=scenic /other/disk/scenic --output=dataset --snapshot=2024-06 --link=copy
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds this command's flags."""
    parser.add_argument("folder", type=reading.path, metavar="DIR", help=f"folder to make: {flags.ANYWHERE}")
    parser.add_argument("--layout", required=True, choices=["scenic"], help="whose names")
    reading.add_output(parser)
    parser.add_argument("--snapshot", default="latest", metavar="NAME", help="which snapshot (default: %(default)s)")
    parser.add_argument(
        "--link", default="hard", choices=["hard", "symbolic", "copy"], help="how (default: %(default)s)"
    )
    reading.add_json(parser)


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Runs the command; returns its exit status."""
    from mbt.pipeline import export

    options = export.Options(root=known.output, snapshot=known.snapshot, folder=known.folder, link=known.link)
    return reading.answer(known, beam, lambda: export.export(options))
