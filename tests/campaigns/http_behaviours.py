"""More than two hundred ways of a web server to misbehave, each asked by GET and HEAD: a table of what came of them.

Each must end within its time limit plus 10 %, with an outcome that is right, leave nothing, and settle nothing wrong.

python tests/campaigns/http_behaviours.py [--share=1.0] [--limit=4] [--threads=24] [--verbose]
"""

import argparse
import collections
import concurrent.futures
import random
import re
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from odd_http import trial


def run(share: float, limit_s: float, threads: int, names: tuple[str, ...] = ()) -> list[trial.Result]:
    """Tries a share of the behaviours, or those that are named."""
    every = trial.behaviours()
    chosen = random.Random(0).sample(every, max(1, round(share * len(every))))
    if names:
        chosen = [each for each in every if each.name in names]
    with tempfile.TemporaryDirectory() as folder, trial.servers(Path(folder)) as urls:
        trial.trust(Path(folder))
        (Path(folder) / "files").mkdir()
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            tried = pool.map(
                lambda each: trial.try_both(each, urls[each.name], Path(folder) / "files", limit_s), chosen
            )
            return [result for results in tried for result in results]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the behaviours (default: all)")
    parser.add_argument("--limit", type=float, default=4.0, help="seconds of each exchange (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=24, help="(default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="one line for each")
    known = parser.parse_args()
    started = time.monotonic()
    results = run(known.share, known.limit, known.threads)
    for result in results:
        if known.verbose or result.complaints:
            said = "; ".join(result.complaints)
            print(f"{result.method:4} {result.name:28} {result.came:28} {result.seconds:5.2f} s  {said}")
    print("| what came | GET | HEAD | longest, s |\n|---|---|---|---|")
    kinds = [(re.sub(r"http_\d+", "http_*", result.came), result) for result in results]
    counts = collections.Counter((came, result.method) for came, result in kinds)
    for came in sorted({came for came, _ in kinds}):
        longest = max(result.seconds for kind, result in kinds if kind == came)
        print(f"| `{came}` | {counts[came, 'GET']} | {counts[came, 'HEAD']} | {longest:.2f} |")
    bad = sum(bool(result.complaints) for result in results)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(
        f"\n{len(results) // 2} behaviours, each by GET and HEAD, with a limit of {known.limit:g} s: "
        f"{bad} wrong or late; {time.monotonic() - started:.0f} s in all, peak memory {mib} MiB"
    )
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
