"""`mbt-train predict`: names what is seen and heard in any video."""

import argparse
import json
import sys

from mbt.train.commands import flags

NAME = "predict"
HELP = "name what is seen and heard in a video"

DESCRIPTION = """\
Asks a checkpoint of a run about video files or http(s) URLs, YouTube's too. Each is decoded as
`mbt-data build` decodes it and read as `mbt-train evaluate` reads it: where it is longer than the window, the run's
data.views windows are spread over it and their scores averaged. The dataset is not needed.

Scores are probabilities: of each class on its own (config.loss.name=bce), or of one class against all others (ce).

--rollout=PNG draws Attention Rollout: the middle frame and the spectrogram, and beside them where the output came from,
summed over all frames. --beside=DIR draws another run beside it, as the paper's Fig. 6 does.

examples:
  mbt-train predict --workdir=runs/both film.mp4
  mbt-train predict --workdir=runs/both --start=61.5 --end=71.5 film.mp4 https://example.org/other.webm
  mbt-train predict --workdir=runs/both --rollout=film.png --json film.mp4
  mbt-train predict --workdir=runs/both --rollout=film.png --beside=runs/vanilla film.mp4

exit status: 0 done, 1 some clip could not be read (each is told in one line), 2 a wrong command
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the command's flags."""
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="a video file or an http(s) URL")
    flags.add_workdir(parser)
    parser.add_argument("--start", type=float, default=0.0, metavar="SECONDS", help="where the clips begin; default: 0")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="where they end; default: the end of the file")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to name; default: 5")
    parser.add_argument("--rollout", type=flags.path, metavar="PNG", help="draw the attention over the one clip")
    parser.add_argument("--beside", type=flags.path, metavar="DIR", help="of another run, to draw beside it")
    flags.add_data_root(parser, "for a run without labels.json")
    flags.add_best(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, overrides: list[str]) -> None:
    """Runs the command."""
    flags.refuse_others(overrides)
    from mbt.train import predict
    from mbt.train.media import MediaError

    answers = predict.predict(
        args.workdir,
        args.clips,
        start_s=args.start,
        end_s=args.end,
        count=args.top,
        root=args.data_root,
        rollout=args.rollout,
        beside=args.beside,
        best=args.best,
    )
    said, failed = [], {}
    for clip, answer in answers:
        if isinstance(answer, MediaError):
            failed[clip] = str(answer)
            print(f"mbt-train predict: {clip}: {answer}", file=sys.stderr, flush=True)
        else:
            said.append(answer)
            if not args.json:
                print(_to_text(answer), flush=True)
    if args.json:
        print(json.dumps({"clips": said, "failed": failed}))
    if failed:
        raise SystemExit(1)


def _to_text(answer: dict) -> str:
    lines = [f"{answer['clip']}, {answer['start']:g} to {answer['end']:g} s"]
    for name, classes in answer.items():
        if isinstance(classes, list):
            lines += [f"  {name}:"] if name != "labels" else []
            lines += [f"  {found['score']:6.4f}  {found['label']}" for found in classes]
    return "\n".join(lines)
