"""`mbt-data build`: annotations to a snapshot of TFRecords."""

import argparse

from mbt.pipeline.commands import flags

NAME = "build"
HELP = "fetch what is missing, decode it, and publish a snapshot of TFRecords"

DESCRIPTION = """\
Reads annotations, fetches the media that are not there yet, decodes each clip once, and publishes a snapshot of
TFRecords below --output.

A CSV of your own begins with a line that names its columns: video_path,start,end,label and, if wanted, split and id, in
any order.
  video_path  a local path (absolute, or below --media_root), an http(s), gs:// or s3:// URL, or a YouTube page
  start, end  seconds in the video
  label       one name, or several separated by ';'
  split       e.g. train or test; "train" where the column is missing
  id          unique; made of path, start and end where the column is missing

Run it again after correcting the annotations: only the shards that changed are built. A run that was killed is
finished by the same command. Clips that cannot be used never stop the job; each gets a reason. What stops it is a split
that would lose more than --allow_loss to servers that refuse us or are down, or to files that are not there.
"""

EPILOG = (
    flags.DATASET_HELP
    + """
Beam's own flags work too:
  --runner=DirectRunner    this machine (the default); --direct_num_workers=4, --direct_running_mode=multi_processing
  --runner=PrismRunner     --prism_location=PATH of its binary; Beam downloads it where none is named
  --runner=FlinkRunner     --flink_master=HOST:8081, --parallelism=8; --flink_job_server_jar=PATH or --job_endpoint=...
  --runner=DataflowRunner  --project, --region, --temp_location

examples:
  mbt-data build --annotations=clips.csv --media_root=videos --output=dataset
  mbt-data build --annotations=clips.csv --output=dataset --runner=PrismRunner --prism_location=$HOME/go/bin/prism
  mbt-data build --dataset=vggsound --annotations vggsound.csv stat.csv --limit=100 --output=vggsound
"""
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    flags.add_output(parser)
    flags.add_dataset(parser)
    flags.add_fetch(parser)
    flags.add_build(parser)
    parser.add_argument("--json", action="store_true", help="print the summary as JSON, for machines")


def run(known: argparse.Namespace, beam: tuple[str, ...]) -> int:
    """Builds; returns the exit status."""
    options = flags.build_options(known, beam)
    from mbt.pipeline import run, summary

    result = run.build(options)
    print(summary.of_build(result, options))
    return 0
