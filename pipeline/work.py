"""One run of a command that reads annotations: the clips, what is fetched of them, what its workers share."""

import contextlib
import dataclasses
import datetime
import os
import tempfile
from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.options.pipeline_options import PipelineOptions

from mbt.pipeline import (
    breaker,
    canary,
    dataflow,
    fetching,
    job,
    job_server,
    known,
    ledger,
    media,
    plan,
    runner,
    storage,
    tombstones,
    writer,
)
from mbt.pipeline import dataset as datasets
from mbt.pipeline.annotations.read import Annotations, read
from mbt.pipeline.errors import IncompleteError, RefusedError
from mbt.pipeline.options import Options
from mbt.pipeline.progress import Bar
from mbt.schemas.clip import Outcome

TMP_FOLDER = "tmp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clips:
    """The annotations as tables: the rows that can be clips, and those that cannot."""

    valid: pa.Table
    invalid: pa.Table
    labels: tuple[str, ...] | None
    notes: tuple[str, ...]


def read_clips(options: Options, salt: str) -> Clips:
    """The annotations.

    Raises:
      AnnotationsError: a file cannot be read, or is damaged.
      RefusedError: more rows are bad than is admitted.
    """
    annotations = read(options.selection)
    table = plan.clip_table(annotations.rows(), salt)
    _check_bad_rows(options, table.filter(pc.equal(table["outcome"], Outcome.INVALID.value)))
    table = tombstones.marked(table, options.root)
    is_valid = pc.equal(table["outcome"], Outcome.NOT_TRIED.value)
    invalid = table.filter(pc.invert(is_valid))
    return Clips(
        valid=table.filter(is_valid), invalid=invalid, labels=annotations.labels, notes=_notes(annotations, invalid)
    )


def read_some_clips(options: Options, salt: str) -> Clips:
    """The annotations, of which at least one must be a clip.

    Raises:
      AnnotationsError: a file cannot be read, or is damaged.
      RefusedError: more rows are bad than is admitted, or none is a clip.
    """
    clips = read_clips(options, salt)
    if not len(clips.valid):
        why = _first_bad(clips.invalid) if len(clips.invalid) else "it has no rows"
        raise RefusedError(f"{options.selection.files[0]} holds no valid clip: {why}")
    return clips


def _check_bad_rows(options: Options, invalid: pa.Table) -> None:
    """Refuses more bad rows than are admitted; those that only the whole list shows, such as ids that stand twice."""
    most = options.selection.max_bad_rows
    if most is None and options.selection.dataset != "csv":
        most = 0
    if most is not None and len(invalid) > most:
        raise RefusedError(
            f"{_first_bad(invalid)}. {len(invalid)} rows are bad; mend the file, or admit them: "
            f"--max_bad_rows={len(invalid)}"
        )


def _notes(annotations: Annotations, invalid: pa.Table) -> tuple[str, ...]:
    bad = invalid.filter(pc.not_equal(invalid["reason"], tombstones.PURGED))
    said = f"{len(bad)} bad rows, the first: {_first_bad(bad)}" if len(bad) else ""
    return (*annotations.notes, *([said] if said else []))


def _first_bad(invalid: pa.Table) -> str:
    row = invalid.slice(0, 1).to_pylist()[0]
    return f"{row['file']}, line {row['line']}: {row['detail']}"


class Work:
    """One run of a command that writes: what its stages share."""

    def __init__(self, options: Options, beam_options: PipelineOptions, program: str, part: writer.Part):
        self.options = options
        self.beam_options = beam_options
        self.program = program
        self.root = options.root
        self._part = part
        suffix = "" if part == writer.WHOLE else f"-{part.number}-of-{part.of}"
        self._clear_leftovers(suffix)
        self.run = ledger.new_run(self.root)
        self.folder = storage.join(self.root, TMP_FOLDER, f"run-{self.run:06d}{suffix}")

    def _clear_leftovers(self, suffix: str) -> None:
        """Deletes what killed runs left: nobody else writes this part."""
        if self._part == writer.WHOLE:
            storage.delete_folder(storage.join(self.root, TMP_FOLDER))
            return
        for name in storage.folders(storage.join(self.root, TMP_FOLDER)):
            if name.endswith(suffix):
                storage.delete_folder(storage.join(self.root, TMP_FOLDER, name))

    def end(self) -> None:
        """Deletes this run's temporary files."""
        storage.delete_folder(self.folder)
        tmp = storage.join(self.root, TMP_FOLDER)
        if self._part == writer.WHOLE:
            storage.delete_folder(tmp)
        elif storage.is_local(tmp):
            with contextlib.suppress(OSError):
                os.rmdir(tmp)

    def forget_media(self) -> None:
        """Deletes the media that only this run may have, also where it did not come to its end."""
        storage.delete_folder(storage.join(self.folder, media.FOLDER))

    def salt(self) -> str:
        """Of the hash that assigns clips to shards."""
        existing = datasets.read(self.root)
        return existing.salt if existing else self.options.name

    def read(self, salt: str) -> Clips:
        """The annotations."""
        clips = read_some_clips(self.options, salt)
        if dataflow.is_chosen(self.beam_options):
            dataflow.refuse_local_sources(clips.valid)
        return clips

    def fetch(self, table: pa.Table, own: dict[str, tuple[str, bool]] | None = None, *, anew: bool = False) -> None:
        """Fetches what is left of these clips, or adopts a lab's own copies of them.

        Args:
          table: the clips.
          own: a lab's copies: clip id to the path and whether that is cut to the clip.
          anew: see `known.to_fetch`.

        Raises:
          IncompleteError: it was stopped.
        """
        path, count = self._fetch_plan(table, own, anew=anew)
        if count:
            with self.job(count, "fetch") as shared, self.pipeline("fetch") as pipeline:
                _ = pipeline | beam.Create([path]) | fetching.Fetch(shared)
        if self.options.recut:
            storage.delete(*(storage.join(self.root, name) for name in media.replaced(self.root)))
        self._check_not_stopped(breaker.read(ledger.storms_of(self.root, self.run)))

    def _fetch_plan(self, table: pa.Table, own: dict[str, tuple[str, bool]] | None, *, anew: bool) -> tuple[str, int]:
        """Writes down what is left to fetch; the path, and how many rows."""
        store = media.listing(self.root)
        if self.options.recut:
            store = {key: path for key, path in store.items() if not media.is_old_cut(path)}
        rows = known.to_fetch(
            table,
            ledger.state(self.root),
            store,
            run=self.run,
            part=self._part,
            copies=own,
            most=self.options.max_attempts,
            recheck=self._recheck(),
            anew=anew,
        )
        path = storage.join(self.folder, "fetch.parquet")
        if len(rows):
            plan.write(rows, path)
        return path, len(rows)

    def _check_not_stopped(self, stopped: dict[str, str]) -> None:
        """Ends a run that gave up everything, or a host; with --allow_loss `loss_guard` judges what else there is.

        Raises:
          IncompleteError: it did.
        """
        if not stopped or (breaker.ALL not in stopped and self.options.allow_loss is not None):
            return
        first = stopped.get(breaker.ALL) or stopped[min(stopped)]
        more = f", and so with {len(stopped) - 1} more hosts" if len(stopped) > 1 else ""
        raise IncompleteError(
            f"stopped early: {first}{more}. No clip counts as lost for that, and nothing was published. "
            "Go on with the same command, in an hour or so where you were throttled; --sleep, --cookies and "
            "--proxies help (see mbt-data fetch --help)"
        )

    def _recheck(self) -> known.Recheck | None:
        if self.options.recheck is None:
            return None
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=self.options.older_than_s)
        return known.Recheck(outcomes=self.options.recheck, before=before)

    def pipeline(self, title: str) -> contextlib.AbstractContextManager[beam.Pipeline]:
        """A pipeline for the steps of a stage, which runs when the block ends."""
        if not dataflow.is_chosen(self.beam_options):
            return job_server.pipeline(self.beam_options)
        return dataflow.pipeline(dataflow.job_options(self.options, title, self.folder), title)

    @contextlib.contextmanager
    def job(self, num_clips: int, title: str) -> Iterator[job.Job]:
        """What the workers of a stage must know, and a bar that shows how far they are."""
        local = runner.is_local(self.beam_options)
        with contextlib.ExitStack() as stack:
            folder = None
            if local:
                folder = self._progress_folder(title, stack)
                stack.enter_context(Bar(folder, num_clips, title))
            yield job.Job(
                root=self.root,
                work=self.folder,
                run=self.run,
                dataset_name=self.options.name,
                media_root=self._media_root(),
                canary=canary.digest(self.program),
                ffmpeg_path=self.options.ffmpeg,
                threads=runner.threads_per_worker(self.beam_options),
                time_limit_s=self.options.time_limit_s,
                launcher=os.getpid() if local else None,
                progress=folder,
                fetch=self.options.fetch,
            )

    def _media_root(self) -> str:
        """As far as workers need it, who find no local path where they share no files with this machine."""
        root = self.options.selection.media_root
        return "" if dataflow.is_chosen(self.beam_options) and storage.is_local(root) else root

    def _progress_folder(self, title: str, stack: contextlib.ExitStack) -> str:
        if not storage.is_local(self.root):
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="mbt-progress-"))
        os.makedirs(self.folder, exist_ok=True)
        return tempfile.mkdtemp(prefix=f"progress-{title}-", dir=self.folder)
