"""The report: what it shows, that nothing in it can act, and how it looks in a real browser."""

import base64
import csv
import datetime
import io
import itertools
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from mbt.pipeline import report
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.main import main
from mbt.pipeline.report import charts, contact

HOSTILE_LABEL = '<script>alert("label")</script>'
HOSTILE_ID = '"><img src=x onerror=alert(1)>'
HOSTILE_REASON = "gone/</style></title><script>alert('reason')</script>{{ 7 * 7 }}"
LONG_LABEL = "a" * 200
MANY_LABELS = [f"kind {number:02d}" for number in range(30)]


@pytest.fixture(scope="module")
def root(mbt_data, make_media, clip_folder, tmp_path_factory) -> Path:
    """Two snapshots with hostile names; one clip is black and silent for 1 s, then white and loud for another."""
    folder = tmp_path_factory.mktemp("shown")
    media = shutil.copytree(clip_folder, folder / "media")
    sight = "color=c=black:s=96x54:r=25,geq=lum='if(gte(T,1),235,16)':cb=128:cr=128"
    sound = "aevalsrc='if(gte(t,1),0.5*sin(2*PI*1000*t),0)':s=16000"
    make_media(media / "halves.mp4", seconds=2, video=sight, audio=sound)
    make_media(media / "tall.mp4", seconds=1.5, size="48x96")
    make_media(media / "flat.mp4", seconds=1, size="1600x4")
    rows = [[f"{n}.mp4", 0, 1, f"class {n % 3};all", "train", f"clip-{n}"] for n in range(6)]
    rows += [
        ["halves.mp4", 0, 2, HOSTILE_LABEL, "test", "halves"],
        ["tall.mp4", 0, 3, LONG_LABEL, "test", HOSTILE_ID],
        ["flat.mp4", 0, 1, ";".join(MANY_LABELS), "test", "flat"],
        ["absent.mp4", 0, 1, HOSTILE_LABEL, "test", "absent"],
    ]
    for name in ("one", "two"):
        with open(folder / "clips.csv", "w", newline="") as file:
            csv.writer(file).writerows([["video_path", "start", "end", "label", "split", "id"], *rows])
        words = [f"--annotations={folder}/clips.csv", f"--media_root={media}", f"--output={folder}/out"]
        done = mbt_data("build", *words, "--num_shards=2", "--allow_loss=0.25", f"--snapshot={name}")
        assert done.returncode == 0, done.stderr
        (media / "1.mp4").unlink(missing_ok=True)
    path = folder / "out" / "snapshots" / "two" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["test"]["lost"][HOSTILE_REASON] = 3
    path.write_text(json.dumps(manifest))
    return folder / "out"


@pytest.fixture(scope="module")
def html(root) -> Path:
    written = report.write(report.Options(root=str(root), snapshot="latest", html=str(root.parent / "copy.html")))
    beside, copy = map(Path, written.paths)
    assert beside == root / "snapshots" / "two" / "report.html"
    assert beside.read_bytes() == copy.read_bytes() and len(beside.read_bytes()) == written.bytes
    return beside


class Elements(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_annotations_stay_text(html):
    text = html.read_text()
    found = Elements(text).found
    assert [attributes for tag, attributes in found if tag == "script"] == [{}]
    assert not [tag for tag, _ in found if tag in ("img", "iframe", "object", "form")]
    assert not [name for _, attributes in found for name in attributes if name.startswith("on")]
    links = [value for _, each in found for name, value in each.items() if name in ("href", "src")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "&lt;script&gt;alert" in text and "{{ 7 * 7 }}" in text


def test_the_same_seed_shows_the_same_clips(root, html):
    options = report.Options(root=str(root), snapshot="two", clips=2)
    first, again = (Path(report.write(options).paths[0]).read_bytes() for _ in range(2))
    assert first == again
    others = [report.Options(root=str(root), snapshot="two", clips=2, seed=seed) for seed in range(1, 5)]
    assert any(Path(report.write(each).paths[0]).read_bytes() != first for each in others)
    report.write(report.Options(root=str(root), snapshot="two"))


def test_frames_and_spectrogram_share_one_time_axis(root):
    manifest = report.catalogue.find(report.catalogue.snapshots(str(root)), "two")
    (sheet,) = [sheet for sheet in contact.sheets(str(root), manifest, 6, 0) if sheet.split == "test"]
    (card,) = [card for card in sheet.cards if card.id == "halves"]
    strip, mel = (np.asarray(decoded(url).convert("L"), np.float32) for url in (card.strip, card.spectrogram))
    assert strip.shape[1] == pytest.approx(mel.shape[1], abs=len(card.times))
    at = np.array(card.times) / card.seconds
    bright = strip[:, (at * strip.shape[1]).astype(int)].mean(axis=0)
    assert ((bright > 128) == (np.array(card.times) >= 1)).all() and 0 < (bright > 128).sum() < len(at)
    loudest = mel.max(axis=0)
    assert loudest[: mel.shape[1] * 48 // 100].max() < 60
    assert loudest[mel.shape[1] * 52 // 100 :].min() > 180
    low, high = np.array_split(mel[:, mel.shape[1] * 3 // 4], 2)[::-1]
    assert low.max() > high.max()  # 1 kHz lies in the lower half of the mel bands, which is drawn below
    places = {tick.text: tick.at for tick in card.ticks}
    assert places["1"] == contact.WIDTH / 2 and places["2 s"] == contact.WIDTH


def test_a_clip_of_many_labels_and_few_pixels_has_its_card(root):
    card = cards(root)["flat"]
    assert (card.labels, card.more_labels) == (tuple(MANY_LABELS[:24]), 6)
    assert decoded(card.strip).height == 1


def test_a_card_and_a_split_are_as_long_as_the_record(root, html):
    """Not as what was annotated: that is 3 s, of which the film has half."""
    assert cards(root)[HOSTILE_ID].seconds == pytest.approx(1.5, abs=0.05)
    assert re.search(r"4\.[45]\d* s, each 1 to 2 s", html.read_text())


def test_a_damaged_record_is_not_shown(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    for shard in (copy / "shards").glob("*.tfrecord"):
        data = bytearray(shard.read_bytes())
        if data:
            data[data.index(b"\xff\xd8\xff") + 700] ^= 1  # inside a JPEG, which stays one
            shard.write_bytes(data)
    with pytest.raises(RefusedError, match="does not match its checksum; `mbt-data verify` says more"):
        report.write(report.Options(root=str(copy), snapshot="two"))


def cards(root: Path) -> dict[str, contact.Card]:
    manifest = report.catalogue.find(report.catalogue.snapshots(str(root)), "two")
    return {card.id: card for sheet in contact.sheets(str(root), manifest, 6, 0) for card in sheet.cards}


@pytest.mark.parametrize("flag", ["--clips=x", "--clips=25", "--clips=-1", "--seed=-1", "--seed=1.5"])
def test_numbers_are_checked(root, flag, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", f"--output={root}", flag])
    name, _, value = flag.partition("=")
    assert ended.value.code == 2 and f"argument {name}: '{value}' is not a number from 0" in capsys.readouterr().err


def decoded(url: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def test_charts_say_their_numbers():
    edges = ["0", "1", "2", "3"]
    chart = charts.histogram("Lengths", {"a": np.array([0, 4, 0]), "b": np.array([0, 4, 2])}, edges, "seconds")
    (first,), (above, last) = (series.marks for series in chart.series)
    assert first.title == "a: 4 from 1 to 2 seconds" and last.title == "b: 2 from 2 to 3 seconds"
    assert above.y + above.height == pytest.approx(first.y) and first.height == above.height == 2 * last.height


def test_times_on_an_axis_differ():
    start = datetime.datetime(2024, 5, 31, 12, tzinfo=datetime.UTC)
    for step in (datetime.timedelta(seconds=20), datetime.timedelta(hours=3), datetime.timedelta(days=40)):
        chart = charts.over_time("", [start, start + step], {"train": [100.0, 90.0]})
        texts = [tick.text for tick in chart.x_ticks]
        assert len(set(texts)) == len(texts) == 3


@pytest.mark.parametrize(("number", "text"), [(0, "0"), (950, "950"), (12_000, "12k"), (3_400_000, "3.4M")])
def test_counts_on_axes_are_short(number, text):
    assert charts.compact(number) == text


def test_pictures_stay_within_their_budget(root, monkeypatch):
    manifest = report.catalogue.find(report.catalogue.snapshots(str(root)), "two")
    everything = contact.sheets(str(root), manifest, 6, 0)
    monkeypatch.setattr(contact, "BUDGET_BYTES", 20_000)
    fewer = contact.sheets(str(root), manifest, 6, 0)
    sizes = [len(card.strip) + len(card.spectrogram) for sheet in fewer for card in sheet.cards]
    assert 0 < sum(sizes) <= 20_000
    assert len(sizes) < sum(len(sheet.cards) for sheet in everything)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium of this machine."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        missing = "no Chromium on PATH: `make browser` installs it"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to sandbox for root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield browser
        browser.close()


def opened(browser: Browser, html: Path, width: int, scheme: str = "light") -> tuple[Page, list[str]]:
    """The page, and everything that a quiet page would not have done."""
    page = browser.new_page(viewport={"width": width, "height": 740}, color_scheme=scheme)
    noise: list[str] = []

    def allowed(url: str) -> bool:
        return url == html.as_uri() or url.startswith("data:")

    page.on("console", lambda message: noise.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: noise.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (noise.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if allowed(request.url) else noise.append(f"request: {request.url}"))
    page.goto(html.as_uri())
    return page, noise


def test_it_is_quiet_and_says_what_was_annotated(browser, html):
    page, noise = opened(browser, html, 1200)
    assert not noise
    rows = page.locator("#classes tbody th").all_inner_texts()
    assert HOSTILE_LABEL in rows and LONG_LABEL[:79] + "…" in rows
    captions = page.locator("figcaption").all_inner_texts()
    assert any(HOSTILE_ID in caption for caption in captions)
    reasons = page.locator("section:has(#reasons) tbody th").all_inner_texts()
    assert any("<script>alert('reason')" in reason for reason in reasons)
    assert "5 of 6" in page.locator(".card", has_text="train").first.inner_text().replace("records of", "of")
    page.close()


def test_it_can_reach_nothing(browser, html):
    """Even with a script of someone else in it, which the page's own policy stops."""
    planted = html.with_name("planted.html")
    evil = "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/x.png'></body>"
    planted.write_text(html.read_text().replace("</body>", evil))
    page, _ = opened(browser, planted, 1200)
    assert page.title() != "owned"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, html, scheme):
    page, noise = opened(browser, html, 360, scheme)
    assert not noise
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    fixed = "[...document.querySelectorAll('body *')].filter((e) => !e.closest('.scroll, .tall, svg'))"
    wide = f"{fixed}.filter((e) => e.getBoundingClientRect().right > 360.5).map((e) => e.outerHTML.slice(0, 99))"
    assert page.evaluate(wide) == []
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map((e) => e.getBoundingClientRect().height))"
    assert page.evaluate(smallest) >= 10
    page.close()


def test_dark_and_light_differ_and_can_be_read(browser, html):
    contrasts = {}
    for scheme in ("light", "dark"):
        page, _ = opened(browser, html, 1200, scheme)
        colours = [
            page.locator(place).first.evaluate(f"(e) => getComputedStyle(e).{name}")
            for place, name in ((".card", "backgroundColor"), ("td", "color"), (".note", "color"))
        ]
        card, *inks = [luminance(colour) for colour in colours]
        contrasts[scheme] = [(max(ink, card) + 0.05) / (min(ink, card) + 0.05) for ink in inks]
        assert (card > 0.5) == (scheme == "light")
        page.close()
    assert min(contrasts["light"] + contrasts["dark"]) >= 4.5  # WCAG 2.2, 1.4.3


def luminance(colour: str) -> float:
    """Relative luminance of `rgb(r, g, b)`; WCAG 2.2's definition."""
    channels = np.array(re.findall(r"\d+", colour)[:3], float) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_everything_has_a_name(browser, html):
    page, _ = opened(browser, html, 1200)
    assert page.locator("html[lang=en]").count() == 1 and page.title()
    assert page.locator("svg:not([role=img][aria-label])").count() == 0
    assert page.locator("table").count() == page.locator("table:has(thead th[scope=col])").count() > 3
    assert page.locator("tbody tr:not(:has(th[scope=row]))").count() == 0
    assert page.get_by_role("searchbox", name="Search the classes by name").count() == 1
    levels = page.locator("h1, h2, h3").evaluate_all("all => all.map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
    page.close()


def test_classes_are_searched_and_sorted(browser, html):
    page, noise = opened(browser, html, 360)
    rows = page.locator("#classes tbody tr:visible th")
    assert rows.count() == 36 and page.locator("#count").inner_text() == "36 of 36 classes"
    page.locator("#search").fill("CLASS ")
    assert rows.all_inner_texts() == ["class 0", "class 2", "class 1"]
    assert page.locator("#count").inner_text() == "3 of 36 classes"
    page.locator("#search").fill("<SCRIPT>")
    assert rows.all_inner_texts() == [HOSTILE_LABEL]
    page.locator("#search").fill("no such class")
    assert rows.count() == 0
    page.locator("#search").fill("")
    header = page.locator("#classes thead th", has_text="records")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    numbers = [int(cell) for cell in page.locator("#classes tbody tr td:nth-child(3)").all_inner_texts()]
    assert numbers == sorted(numbers, reverse=True) and len(set(numbers)) > 1
    header.get_by_role("button").click()
    assert page.locator("#classes tbody tr td:nth-child(3)").first.inner_text() == str(numbers[-1])
    assert not noise
    page.close()
