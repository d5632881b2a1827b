"""`mbt-data report`: one HTML file that shows a snapshot, and needs nothing else.

What comes from annotations is untrusted: the template escapes all of it, and the page's own policy forbids every
request, and every script but the one whose digest it names.
"""

import base64
import dataclasses
import hashlib
from importlib import resources

import jinja2

from mbt.pipeline import catalogue, storage, tally
from mbt.pipeline.report import contact, view
from mbt.pipeline.terminal import between, length, percent, size
from mbt.schemas.manifest import Manifest

REPORT_FILE = "report.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What `mbt-data report` was told.

    Attributes:
      root: of the dataset.
      snapshot: name of one.
      html: another place to write to, or None.
      clips: shown of each split.
      seed: of their choice.
    """

    root: str
    snapshot: str
    html: str | None = None
    clips: int = 6
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
    """Where the report lies, and its size in bytes."""

    snapshot: str
    paths: tuple[str, ...]
    bytes: int

    def to_json(self) -> dict:
        """For machines."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """For a person."""
        return "\n".join(f"{path} ({size(self.bytes)})" for path in self.paths)


def write(options: Options) -> Written:
    """Writes the report.

    Raises:
      CatalogueError: no such snapshot, or its clip table or a shard cannot be read.
    """
    known = catalogue.snapshots(options.root)
    manifest = _train_first(catalogue.find(known, options.snapshot))
    rows = catalogue.clip_batches(options.root, manifest, tally.COLUMNS)
    counts = tally.count(rows, manifest.splits, manifest.labels)
    page = view.page(manifest, known, counts)
    sheets = contact.sheets(options.root, manifest, options.clips, options.seed)
    html = render(page, sheets).encode()
    paths = [storage.join(options.root, catalogue.FOLDER, manifest.snapshot, REPORT_FILE)]
    paths += [options.html] if options.html else []
    for path in paths:
        storage.write(path, html)
    return Written(snapshot=manifest.snapshot, paths=tuple(paths), bytes=len(html))


def render(page: view.Page, sheets: list[contact.Sheet]) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.lstrip_blocks = True
    environment.globals |= {"percent": percent, "size": size, "length": length, "between": between, "cut": view.cut}
    style, script = _file("style.css"), _file("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.from_string(_file("page.html.j2"))
    return template.render(page=page, sheets=sheets, style=style, script=script, script_digest=digest)


def _train_first(manifest: Manifest) -> Manifest:
    """The manifest with its splits in the order in which people name them."""
    names = sorted(manifest.splits, key=lambda name: (name != "train", name == "test", name))
    return dataclasses.replace(manifest, splits={name: manifest.splits[name] for name in names})


def _file(name: str) -> str:
    return resources.files(__name__).joinpath(name).read_text("utf-8")
