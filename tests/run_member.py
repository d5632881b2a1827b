"""One process of a run without the training: what the tests of the rendezvous and the watch start.

python tests/run_member.py '{"port": 1234, "count": 2, "me": 0}'; then a line on stdin: "leave", or "fail".
"""

import json
import sys
import time

from mbt.train.errors import LostError, UsageError
from mbt.train.rendezvous import Place, meet
from mbt.train.watch import Watch


def main() -> int:
    advice = {"hang": lambda: time.sleep(1000), "fail": lambda: 1 / 0, "say": lambda: "do it again"}
    words = {"host": "127.0.0.1", "beat_s": 0.2, "silence_s": 3.0} | json.loads(sys.argv[1])
    advise, reason = advice[words.pop("advice", "say")], words.pop("reason", "a record is damaged")
    pace = {name: words.pop(name) for name in ("beat_s", "silence_s")}
    try:
        meeting = meet(Place(**words))
    except (UsageError, LostError) as error:
        print(error, file=sys.stderr)
        return error.status
    watch = Watch(words["me"], meeting.connections, meeting.names, advise, **pace)
    watch.start()
    print("met", flush=True)
    if sys.stdin.readline() == "fail\n":
        watch.fail(1, f"process {words['me']} ended: {reason}")
        return 1
    watch.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main())
