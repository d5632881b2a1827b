"""TensorBoard's files, from which a resumed run takes back what came after its checkpoint."""

import pathlib
from collections.abc import Iterator

from tensorboard.compat.proto.event_pb2 import Event

from mbt.schemas import durable, tfrecord


def truncate(folder: pathlib.Path, step: int, *, owed: str = "") -> None:
    """Drops the events after a step, and a last one that was cut short; a file with no points left is deleted.

    Args:
      folder: of the files.
      step: the last that is kept.
      owed: how the names of those begin that come again for this step; "" for none.
    """
    for path in sorted(folder.glob("*tfevents*")):
        kept = [record for record in _whole_records(path) if _is_kept(Event.FromString(record), step, owed)]
        if any(Event.FromString(record).HasField("summary") for record in kept):
            # Until it is whole under a name that TensorBoard does not read.
            durable.write(path, b"".join(_framed(record) for record in kept), folder / "kept.tmp")
        else:
            path.unlink()


def _is_kept(event: Event, step: int, owed: str) -> bool:
    if event.step == step and owed and any(value.tag.startswith(owed) for value in event.summary.value):
        return False
    return event.step <= step


def _whole_records(path: pathlib.Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        try:
            yield from tfrecord.read_records(file)
        except tfrecord.CorruptRecordError:
            return  # the process died while it wrote this one


def _framed(record: bytes) -> bytes:
    header, footer = tfrecord.frame(record)
    return header + record + footer
