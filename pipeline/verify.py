"""`mbt-data verify`: whether a dataset is what was written, and where it is not; `--repair` mends what can be."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from mbt.pipeline import (
    canary,
    ffmpeg,
    ledger,
    manifest_check,
    media,
    media_check,
    needles,
    parquet,
    repair,
    snapshot,
    storage,
    tombstones,
    writer,
)
from mbt.pipeline import dataset as datasets
from mbt.pipeline.errors import RefusedError
from mbt.pipeline.progress import ByteBar
from mbt.pipeline.shard_check import Checker, Listed, Problem
from mbt.schemas import lineage
from mbt.schemas.clip import Outcome
from mbt.schemas.manifest import CLIPS_FILE, DATASET_FILE, MANIFEST_FILE, Dataset, FormatError, Manifest

ALL = "all"
LATEST = "latest"
_COLUMNS = ["id", "split", "source", "start_us", "end_us", "labels", "outcome", "reason", "detail"]
_COLUMNS += ["shard", "record", "offset", "length", "inputs", "treatments", "rule"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """What `mbt-data verify` was told.

    Attributes:
      root: of the dataset.
      snapshot: name of one, or `ALL`, or `LATEST`.
      media: also check the media store.
      repair: rebuild the shards that are damaged.
      ffmpeg: path of another ffmpeg, or None.
      threads: shards checked at a time.
      take_over: from a writer that crashed.
    """

    root: str
    snapshot: str = LATEST
    media: bool = True
    repair: bool = False
    ffmpeg: str | None = None
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    take_over: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
      snapshots: names of those that were checked.
      num_shards: files, each counted once, however many snapshots share it.
      num_records: in them.
      num_media: files of the media store that were checked.
      bytes: of shards and media.
      problems: all of them.
      repaired: shards that were rebuilt to the same file; of those, the problems are gone.
      not_repaired: shard to the reason why not.
    """

    snapshots: tuple[str, ...]
    num_shards: int
    num_records: int
    num_media: int
    bytes: int
    problems: tuple[Problem, ...]
    repaired: tuple[str, ...] = ()
    not_repaired: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def num_left(self) -> int:
        """Problems that are still there."""
        mended = {f"{stem}{kind}" for stem in self.repaired for kind in (".tfrecord", ".index")}
        return sum(problem.file not in mended for problem in self.problems)


def verify(options: VerifyOptions) -> Report:
    """Checks snapshots against all files that they name, the ledger, and the media store.

    Raises:
      RefusedError: no such dataset or snapshot; with `repair` another writer, or a machine that encodes otherwise.
    """
    dataset = _dataset(options.root)
    program = _program(options)
    with contextlib.ExitStack() as stack:
        if options.repair:
            stack.enter_context(_writing(options, dataset, program))
        return _Verify(options, dataset, program).run()


def _dataset(root: str) -> Dataset:
    try:
        dataset = datasets.read(root)
    except datasets.DatasetError as error:
        raise RefusedError(str(error)) from error
    if dataset is None:
        raise RefusedError(f"--output={root} holds no dataset")
    return dataset


def _program(options: VerifyOptions) -> str:
    try:
        return ffmpeg.executable(options.ffmpeg)
    except ffmpeg.FfmpegMissingError as error:
        raise RefusedError(str(error)) from error


@contextlib.contextmanager
def _writing(options: VerifyOptions, dataset: Dataset, program: str) -> Iterator[None]:
    try:
        if dataset.encoder == datasets.encoding(options.ffmpeg, program).encoder:
            canary.check(program, dataset.canary)
        with writer.hold(options.root, take_over=options.take_over):
            tmp = storage.join(options.root, "tmp")
            storage.delete_folder(tmp)  # of killed commands: nobody else writes
            yield
            storage.delete_folder(tmp)
    except (canary.CanaryError, writer.WriterError) as error:
        raise RefusedError(str(error)) from error


class _Verify:
    """One run: what its stages share."""

    def __init__(self, options: VerifyOptions, dataset: Dataset, program: str):
        self._root = options.root
        self._options = options
        self._dataset = dataset
        self._program = program
        self._problems: list[Problem] = []

    def run(self) -> Report:
        """All stages in turn."""
        manifests = self._manifests()
        tables = {manifest.snapshot: self._table(manifest) for manifest in manifests}
        listed = self._listed(manifests, tables)
        stored = self._stored(tables) if self._options.media else {}
        with ByteBar(sum(one.shard.bytes for one in listed) + sum(stored.values()), "verify") as bar:
            damaged = self._check_shards(listed, bar)
            self._problems += media_check.check(self._root, list(stored), self._options.threads, bar.add)
        bad = {one.shard.path for one in damaged}
        for manifest in manifests:
            self._problems += manifest_check.check(self._root, self._dataset, manifest, tables[manifest.snapshot], bad)
        self._check_ledger()
        self._check_purged(listed)
        mended = self._repair(damaged, manifests) if self._options.repair else {}
        return Report(
            snapshots=tuple(manifest.snapshot for manifest in manifests),
            num_shards=len(listed),
            num_records=sum(one.shard.num_records for one in listed),
            num_media=len(stored),
            bytes=sum(one.shard.bytes for one in listed) + sum(stored.values()),
            problems=tuple(self._problems),
            repaired=tuple(stem for stem, why in mended.items() if not why),
            not_repaired={stem: why for stem, why in mended.items() if why},
        )

    def _manifests(self) -> list[Manifest]:
        folder = storage.join(self._root, snapshot.FOLDER)
        names = [name for name in storage.folders(folder) if self._is_finished(name)]
        if not names:
            raise RefusedError(f"--output={self._root} holds no snapshot")
        wanted = self._options.snapshot
        if wanted not in (ALL, LATEST, *names):
            raise RefusedError(f"--snapshot={wanted}: there are {', '.join(names)}")
        read = [self._manifest(name) for name in (names if wanted in (ALL, LATEST) else [wanted])]
        manifests = lineage.in_order(filter(None, read))
        return manifests[-1:] if wanted == LATEST else manifests

    def _is_finished(self, name: str) -> bool:
        return storage.exists(storage.join(self._root, snapshot.FOLDER, name, MANIFEST_FILE))

    def _manifest(self, name: str) -> Manifest | None:
        path = f"{snapshot.FOLDER}/{name}/{MANIFEST_FILE}"
        try:
            return Manifest.from_json(storage.read(storage.join(self._root, path)), name)
        except FormatError as error:
            self._problems.append(Problem(file=path, detail=f"it cannot be read: {error}", snapshots=(name,)))
            return None

    def _table(self, manifest: Manifest) -> pa.Table | None:
        path = f"{snapshot.FOLDER}/{manifest.snapshot}/{CLIPS_FILE}"
        try:
            data = storage.read(storage.join(self._root, path))
        except FileNotFoundError:
            self._add(path, "the file is missing", manifest)
            return None
        if hashlib.sha256(data).hexdigest() != manifest.clips_sha256:
            self._add(path, "its digest is not the manifest's", manifest)
            return None
        return parquet.table(data, _COLUMNS)

    def _add(self, file: str, detail: str, manifest: Manifest) -> None:
        self._problems.append(Problem(file=file, detail=detail, snapshots=(manifest.snapshot,)))

    def _stored(self, tables: dict[str, pa.Table | None]) -> dict[media_check.Stored, int]:
        """The media of the snapshots' records, with their sizes."""
        there = [
            table.filter(pc.equal(table["outcome"], Outcome.OK.value))["id"]
            for table in tables.values()
            if table is not None
        ]
        clip_ids = {clip_id for ids in there for clip_id in ids.to_pylist()}
        sizes = {
            f"{media.FOLDER}/{file.path}": file.bytes for file in storage.files(storage.join(self._root, media.FOLDER))
        }
        return {file: sizes.get(file.path, 0) for file in media_check.stored(self._root, clip_ids)}

    def _listed(self, manifests: list[Manifest], tables: dict[str, pa.Table | None]) -> list[Listed]:
        """Every shard file once, with the rows that snapshots have of it."""
        found: dict[str, Listed] = {}
        for manifest in manifests:
            table, dataset = tables[manifest.snapshot], self._as_of(manifest)
            ranges = {} if table is None else _ranges(table)
            for split, one in manifest.splits.items():
                for number, shard in enumerate(one.shards):
                    first, count = ranges.get((split, number), (0, 0))
                    total = len(one.shards)
                    listed = found.setdefault(
                        shard.path,
                        Listed(shard=shard, split=split, number=number, num_shards=total, rows={}, dataset=dataset),
                    )
                    rows = None if table is None else table.slice(first, count).to_pylist()
                    listed.rows[manifest.snapshot] = rows
        return list(found.values())

    def _as_of(self, manifest: Manifest) -> Dataset:
        """The dataset as it was when a snapshot was made."""
        try:
            return self._dataset.as_of(manifest)
        except FormatError as error:
            self._add(DATASET_FILE, str(error), manifest)
            return self._dataset

    def _check_shards(self, listed: list[Listed], bar: ByteBar) -> list[Listed]:
        """Checks all shards, several at a time; returns those that are damaged."""
        damaged = []
        checker = Checker(root=self._root, program=self._program, on_bytes=bar.add)
        with concurrent.futures.ThreadPoolExecutor(self._options.threads) as pool:
            for one, problems in zip(listed, pool.map(checker.check, listed), strict=True):
                self._problems += problems
                if any(problem.file in (one.shard.path, one.shard.index_path) for problem in problems):
                    damaged.append(one)
        return damaged

    def _check_ledger(self) -> None:
        folder = storage.join(self._root, ledger.FOLDER)
        for run in storage.folders(folder):
            for name in ledger.listed(storage.join(folder, run)):
                path = f"{ledger.FOLDER}/{run}/{name}"
                try:
                    parquet.table(storage.read(storage.join(self._root, path)))
                except FileNotFoundError:
                    pass  # its writer put it together with others since it was listed
                except (pa.ArrowException, OSError) as error:
                    detail = f"it cannot be read: {str(error).splitlines()[0]}"
                    self._problems.append(Problem(file=path, detail=detail))

    def _check_purged(self, listed: list[Listed]) -> None:
        """What was purged is nowhere, and no purge stopped half way."""
        purged = set(tombstones.read(self._root))
        if needles.exists(self._root):
            detail = "a purge was interrupted: run it again, with the same --clips"
            self._problems.append(Problem(file="purge", detail=detail))
        for one in listed if purged else ():
            for name, rows in one.rows.items():
                if back := [row["id"] for row in rows or () if row["outcome"] == Outcome.OK and row["id"] in purged]:
                    detail = "a purged clip is there"
                    problem = Problem(file=one.shard.path, detail=detail, clips=tuple(back), snapshots=(name,))
                    self._problems.append(problem)

    def _repair(self, damaged: list[Listed], manifests: list[Manifest]) -> dict[str, str]:
        """Shard (path without extension) to the reason why it could not be rebuilt, or nothing."""
        labels = {manifest.snapshot: manifest.labels for manifest in manifests}
        attempts = repair.attempts(self._root) if damaged else {}
        fixer = repair.Repair(
            root=self._root,
            encoder=datasets.encoding(self._options.ffmpeg, self._program).encoder,
            program=self._program,
            threads=self._options.threads,
            attempts=attempts,
        )
        ends = {}
        for one in damaged:
            name, rows = next(((name, rows) for name, rows in one.rows.items() if rows is not None), ("", None))
            stem = os.path.splitext(one.shard.path)[0]
            ends[stem] = fixer.rebuild(one, rows, labels[name]) if rows is not None else "its clip table is damaged"
        return ends


def _ranges(table: pa.Table) -> dict[tuple[str, int], tuple[int, int]]:
    """(split, shard) to the first row and the number of rows: the table is in the order of the shards."""
    placed = pa.table({"split": table["split"], "shard": table["shard"], "row": pa.array(range(len(table)))})
    placed = placed.filter(pc.is_valid(placed["shard"]))
    groups = placed.group_by(["split", "shard"]).aggregate([("row", "min"), ("row", "count")])
    return {(row["split"], row["shard"]): (row["row_min"], row["row_count"]) for row in groups.to_pylist()}


def as_json(report: Report) -> str:
    """The report for machines."""
    return json.dumps(dataclasses.asdict(report) | {"left": report.num_left}, indent=1)


def as_text(report: Report) -> str:
    """The report for people."""
    lines = []
    for problem in report.problems:
        clips = f": clips {', '.join(problem.clips)}" if problem.clips else ""
        lines.append(f"{problem.file}: {problem.detail}{clips}")
    lines += [f"{stem}: repaired" for stem in report.repaired]
    lines += [f"{stem}: not repaired: {why}" for stem, why in report.not_repaired.items()]
    names = ", ".join(report.snapshots)
    counts = f"{report.num_shards} shards, {report.num_records} records, {report.num_media} media files"
    checked = f"{counts}, {report.bytes / 1e6:.1f} MB"
    if not report.problems:
        end = "all is well"
    elif not report.num_left:
        end = "all is well again"
    else:
        end = f"{report.num_left} problems" if report.num_left > 1 else "1 problem"
    return "\n".join([*lines, f"snapshot {names}: {checked}: {end}"])
