"""The picture of a report in the documents: the demo's films, of which some went away and came back.

It builds a snapshot for each of seven months, writes the report of the last, and looks at it in Chromium, on a screen
and on a phone in the dark.

    python demo/report_picture.py --output=docs/report.png
"""

import argparse
import datetime
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from typing import Literal

import make_clips
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

YEAR = 2024
# Films, by their place in the list of all, in percent, that go away before a month's snapshot, and that come back.
GONE = ((), (3, 17, 40, 66, 90), (8, 22, 35, 51), (29, 70), (12, 58, 61), (44, 46, 5, 80), (1, 83, 95, 99, 72))
BACK = ((), (), (), (66,), (70,), (), (8,))
DAMAGED_IN, DAMAGED = 2, 55
HEIGHT, GAP = 1030, 24
SCREEN, PHONE = (1000, False, "header"), (360, True, "#clips")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="PNG to write")
    parser.add_argument("--train_per_class", type=int, default=5)
    parser.add_argument("--test_per_class", type=int, default=3)
    parser.add_argument("--months", type=int, default=len(GONE), help="snapshots (default: %(default)s)")
    args = parser.parse_args()
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        sys.exit("no Chromium on PATH: `make browser` installs it")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_clips.write_set(folder / "clips", args.train_per_class, args.test_per_class, seed=0)
        for month in range(args.months):
            change_films(folder / "clips", month)
            build(folder, month)
        mbt_data("report", f"--output={folder / 'dataset'}", f"--html={folder / 'report.html'}")
        look(folder / "report.html", program).save(args.output, optimize=True)
    print(f"{args.output} shows {args.months} snapshots.")


def change_films(clips: pathlib.Path, month: int) -> None:
    """Takes films away, puts some back, and damages one."""
    films = sorted([*clips.glob("*/*.mp4"), *(path.with_suffix("") for path in clips.glob("*/*.mp4.away"))])
    for percent in GONE[month]:
        film = films[percent * len(films) // 100]
        if film.exists():
            film.rename(f"{film}.away")
    for percent in BACK[month]:
        film = films[percent * len(films) // 100]
        if (away := pathlib.Path(f"{film}.away")).exists():
            away.rename(film)
    if month == DAMAGED_IN:
        films[DAMAGED * len(films) // 100].write_text("no film any more")


def build(folder: pathlib.Path, month: int) -> None:
    """A snapshot of what is there, as if it were made on the first of the month."""
    name = f"{YEAR}-{month + 1:02d}"
    mbt_data(
        "build",
        f"--annotations={folder / 'clips' / 'clips.csv'}",
        f"--media_root={folder / 'clips'}",
        f"--output={folder / 'dataset'}",
        "--name=shapes-and-sounds",
        "--allow_loss=1",  # videos go month by month, as files that are not there
        "--num_shards=2",
        f"--snapshot={name}",
    )
    path = folder / "dataset" / "snapshots" / name / "manifest.json"
    created = datetime.datetime(YEAR, month + 1, 1, 6, tzinfo=datetime.UTC).isoformat(timespec="microseconds")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created": created}))


def mbt_data(*words: str) -> None:
    """Runs the command; shows what it said only where it failed."""
    program = pathlib.Path(sys.executable).with_name("mbt-data")
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def look(html: pathlib.Path, program: str) -> Image.Image:
    """The page on a screen and on a phone, side by side."""
    with sync_playwright() as playwright:
        # In a container, where Chromium's own sandbox often cannot be; the page is ours and asks for nothing.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        screen, phone = (photographed(browser, html, *view) for view in (SCREEN, PHONE))
        browser.close()
    both = Image.new("RGB", (screen.width + GAP + phone.width, HEIGHT), "white")
    both.paste(screen, (0, 0))
    both.paste(phone, (screen.width + GAP, 0))
    return both.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def photographed(browser: Browser, html: pathlib.Path, width: int, dark: bool, place: str) -> Image.Image:
    """What such a window shows from a place on."""
    scheme: Literal["dark", "light"] = "dark" if dark else "light"
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    page.goto(html.as_uri())
    page.locator(place).evaluate("(e) => e.scrollIntoView()")
    picture = Image.open(io.BytesIO(page.screenshot()))
    page.close()
    return picture.convert("RGB")


if __name__ == "__main__":
    main()
