"""Disks that are full, that fail, and whose power is cut: nothing announced is lost, nothing wrong is settled.

    python tests/campaigns/disks.py --share=0.1

Each case carries out commands on a small dataset that a server here serves, and then the same command once more on a
disk that is well: that must end as an undisturbed run did, with the same shards. Needs root for the file systems, and
gcc for the calls that fail; what is missing is named and left out.
"""

import argparse
import contextlib
import errno
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dataset_run
import power_cut
from dataset_run import Lists

sys.path.insert(0, str(Path(__file__).parents[1]))
import disk_faults

STEPS = ("fetch", "build", "refresh", "purge")
FETCH_SIZES = ("200k", "300k", "400k", "500k", "600k", "700k")
BUILD_ROOM = (4, 64, 256, 512, 1024, 2048)  # KiB that are left when building begins
CALLS = 20  # of each kind that fail
CUTS = 5  # of each step, the last one right after its end
_IMPORTS_S = 1.5  # before a command writes anything


class Campaign:
    """What all cases share: the lists, an undisturbed dataset after each step, and what went wrong."""

    def __init__(self, folder: Path, clips: Lists, share: float, seed: int):
        self.folder = folder
        self.clips = clips
        self.random = random.Random(seed)
        self.share = share
        self.wrong: list[str] = []
        self.expected: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self._undisturbed(folder / "undisturbed")

    def some(self, cases: list) -> list:
        """As many of the cases as are asked for, at least one, in their order."""
        count = max(1, round(self.share * len(cases)))
        return [cases[place] for place in sorted(self.random.sample(range(len(cases)), count))]

    def words(self, step: str, root: Path) -> list[str]:
        """The command line of a step."""
        return dataset_run.words(step, self.clips, root)

    def check(self, case: str, is_right: object, what: str) -> None:
        """Notes what is not right."""
        if not is_right:
            self.wrong.append(f"{case}: {what}")

    def check_stopped(self, case: str, status: int, said: str, *, root: Path, step: str) -> bool:
        """Whether a command came to its end; else it must have said why in one line."""
        self.check(case, "Traceback" not in said, f"a traceback: {said[-2000:]}")
        self.check(case, not (found := dataset_run.wrongly_settled(root)), f"settled wrongly: {found}")
        if status:
            self.check(case, "mbt-data: " in said, f"nothing is said: {said[-500:]}")
        elif step != "fetch":
            self.check(case, dataset_run.shards(root) == self.expected[step], "status 0, and other shards")
        return status == 0

    def check_goes_on(self, case: str, root: Path, step: str) -> None:
        """Carries out a step once more: it must end as in an undisturbed run."""
        status, said = dataset_run.run(self.words(step, root))
        self.check(case, status == 0, f"status {status} when it went on: {said[-2000:]}")
        self.check(case, not (found := dataset_run.wrongly_settled(root)), f"settled wrongly: {found}")
        self.check(case, not (found := dataset_run.not_whole(root)), f"not whole: {found}")
        self.check(case, dataset_run.shards(root) == self.expected[step], "other shards than undisturbed")
        if step == "fetch":
            self.check_goes_on(case, root, "build")

    def _undisturbed(self, root: Path) -> None:
        for step in STEPS:
            started = time.monotonic()
            status, said = dataset_run.run(self.words(step, root))
            assert status == 0, said
            self.seconds[step] = time.monotonic() - started
            self.expected[step] = dataset_run.shards(root)


Row = tuple[str, int, int]  # what was done, how often, and how often it did not come to its end at once


def full_disks(campaign: Campaign) -> Iterator[Row]:
    """Fetching onto six small disks, and building on one that fills up."""
    cases, stopped = campaign.some(list(FETCH_SIZES)), 0
    for size in cases:
        with disk_faults.small_disk(campaign.folder / "full", f"size={size}") as disk:
            stopped += not _fetched_on(campaign, f"fetch on {size}", disk)
    yield "full disk, fetch", len(cases), stopped
    rooms, stopped = campaign.some(list(BUILD_ROOM)), 0
    for room in rooms:
        with disk_faults.small_disk(campaign.folder / "full", "size=200m") as disk:
            stopped += not _built_on(campaign, f"build with {room} KiB left", disk, room << 10)
    yield "full disk, build", len(rooms), stopped


def few_inodes(campaign: Campaign) -> Iterator[Row]:
    """Fetching onto a disk of 25 inodes."""
    with disk_faults.small_disk(campaign.folder / "inodes", "size=100m,nr_inodes=25") as disk:
        yield "25 inodes, fetch", 1, int(not _fetched_on(campaign, "fetch with 25 inodes", disk))


def _fetched_on(campaign: Campaign, case: str, disk: Path) -> bool:
    root = disk / "out"
    status, said = dataset_run.run(campaign.words("fetch", root))
    done = campaign.check_stopped(case, status, said, root=root, step="fetch")
    campaign.check(case, done or str(disk) in said, f"the folder is not named: {said[-500:]}")
    disk_faults.enlarge(disk)
    campaign.check_goes_on(case, root, "fetch")
    return done


def _built_on(campaign: Campaign, case: str, disk: Path, left: int) -> bool:
    root, filler = disk / "out", disk / "filler"
    dataset_run.run(campaign.words("fetch", root))
    process = dataset_run.start(campaign.words("build", root))
    filling = threading.Thread(target=_fill_when, args=(lambda: _is_building(root), process.poll, filler, left))
    filling.start()
    said, _ = process.communicate(timeout=600)
    filling.join()
    status = process.returncode
    done = campaign.check_stopped(case, status, said.decode(errors="replace"), root=root, step="build")
    filler.unlink(missing_ok=True)
    campaign.check_goes_on(case, root, "build")
    return done


def _is_building(root: Path) -> bool:
    return any(root.glob("tmp/run-*/tasks.jsonl"))


def _fill_when(begins: Callable[[], bool], ended: Callable[[], int | None], filler: Path, left: int) -> None:
    while not begins() and ended() is None:
        time.sleep(0.002)
    with contextlib.suppress(OSError), open(filler, "wb") as file:  # the command takes from the same room
        file.write(bytes(max(0, shutil.disk_usage(filler.parent).free - left)))


def failing_calls(campaign: Campaign) -> Iterator[Row]:
    """The n-th write or fsync below ROOT fails with EIO."""
    library = disk_faults.compiled(campaign.folder)
    for call in ("write", "fsync"):
        cases, stopped = campaign.some(sorted(campaign.random.sample(range(1, 161), CALLS))), 0
        for at in cases:
            root = campaign.folder / f"{call}-{at}"
            faults = disk_faults.environment(library, root, call, errno.EIO, at)
            status, said = dataset_run.run(campaign.words("build", root), faults)
            case = f"build, EIO on {call} {at}"
            stopped += not campaign.check_stopped(case, status, said, root=root, step="build")
            campaign.check_goes_on(case, root, "build")
            shutil.rmtree(root)
        yield f"EIO on {call}, fetch and build", len(cases), stopped


def power_cuts(campaign: Campaign) -> Iterator[Row]:
    """The power goes at random moments of each step, and right after it."""
    with power_cut.disk(campaign.folder / "live") as disk:
        root = disk.folder / "out"
        for step in STEPS:
            copies = _cut_during(campaign, disk, step)
            final = dataset_run.tree(root)
            for number, copy in enumerate(copies):
                ended = number == len(copies) - 1
                _check_cut(campaign, f"{step}, cut {number + 1}", copy, step, final if ended else None)
                copy.unlink()
            yield f"power cut, {step}", len(copies), len(copies) - 1


def _cut_during(campaign: Campaign, disk: power_cut.Disk, step: str) -> list[Path]:
    """Copies of the disk at some moments of a step, the last one right after its end."""
    count = max(1, round(campaign.share * (CUTS - 1)))
    longest = max(_IMPORTS_S + 0.1, campaign.seconds[step])
    moments = sorted(campaign.random.uniform(_IMPORTS_S, longest) for _ in range(count))
    copies = []
    process = dataset_run.start(campaign.words(step, disk.folder / "out"))
    started = time.monotonic()
    for number, moment in enumerate(moments):
        time.sleep(max(0.0, started + moment - time.monotonic()))
        if process.poll() is not None:
            break
        copies.append(campaign.folder / f"{step}-{number}.img")
        with power_cut.stopped(process.pid):
            disk.cut(copies[-1])
    said, _ = process.communicate(timeout=600)
    campaign.check(step, process.returncode == 0, f"status {process.returncode}: {said[-2000:].decode()}")
    copies.append(campaign.folder / f"{step}-end.img")
    disk.cut(copies[-1])
    return copies


def _check_cut(campaign: Campaign, case: str, copy: Path, step: str, final: dict[str, str] | None) -> None:
    """What is there after a cut; `final` is what must be, where the step had come to its end."""
    with power_cut.mounted(copy, campaign.folder / "copy"):
        root = campaign.folder / "copy" / "out"
        campaign.check(case, not (found := dataset_run.not_whole(root)), f"not whole: {found}")
        campaign.check(case, not (found := dataset_run.wrongly_settled(root)), f"settled wrongly: {found}")
        if final is not None:
            found = {path for path, digest in dataset_run.tree(root).items() ^ final.items()}
            campaign.check(case, not found, f"announced, and not as it was: {sorted(found)}")
        elif step != "fetch" and dataset_run.shards(root):
            status, said = dataset_run.run(["verify", f"--output={root}", "--snapshot=all"])
            # A purge that was cut off is a problem of its own, which the next one ends.
            whole = status == 0 or (step == "purge" and "run it again" in said)
            campaign.check(case, whole, f"verify: {said[-1000:]}")
        if step == "fetch":
            campaign.check_goes_on(case, root, "fetch")
        else:
            campaign.check_goes_on(case, root, step)


PARTS: dict[str, tuple[Callable[[Campaign], Iterator[Row]], Callable[[], str]]] = {
    "full": (full_disks, disk_faults.why_no_mounts),
    "inodes": (few_inodes, disk_faults.why_no_mounts),
    "eio": (failing_calls, disk_faults.why_no_library),
    "power": (power_cuts, lambda: disk_faults.why_no_mounts() or power_cut.why_not()),
}


def main() -> int:
    """Runs the campaign; prints a table, and what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--share", type=float, default=1.0, help="of the cases (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the random moments (default: %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="which (default: %(default)s)")
    options = parser.parse_args()
    with dataset_run.folder("disks-") as folder, dataset_run.lists(folder) as clips:
        campaign = Campaign(folder, clips, options.share, options.seed)
        print("| case | times | stopped half way | wrong |\n|---|---|---|---|", flush=True)
        for name in options.parts.split(","):
            part, why_not = PARTS[name]
            if why := why_not():
                print(f"| {name} | 0 | | left out: {why} |", flush=True)
                continue
            before = len(campaign.wrong)
            for what, times, stopped in part(campaign):
                print(f"| {what} | {times} | {stopped} | {len(campaign.wrong) - before} |", flush=True)
                before = len(campaign.wrong)
        print(*campaign.wrong, sep="\n")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
