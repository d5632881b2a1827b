"""The record: `tf.train.SequenceExample` on the wire, without TensorFlow.

The messages below have the field numbers of TensorFlow's `example.proto` and `feature.proto` in a
package of our own, so both can be loaded into one process. Keys are MediaSequence's.
"""

import dataclasses
import enum

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "mbt.schemas"
_FIELD = descriptor_pb2.FieldDescriptorProto


class Kind(enum.Enum):
    """The oneof of `tf.train.Feature` that holds a key's values."""

    BYTES = "bytes_list"
    FLOAT = "float_list"
    INT64 = "int64_list"


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of the record.

    Attributes:
      name: MediaSequence key.
      kind: type of its values.
      steps: False for context, True for a feature list.
      shape: values per step or in the context; None stands for any number.
      doc: what it holds, with units.
    """

    name: str
    kind: Kind
    steps: bool
    shape: tuple[int | None, ...]
    doc: str


KEYS = (
    Key("example/id", Kind.BYTES, False, (1,), "clip id"),
    Key("example/dataset_name", Kind.BYTES, False, (1,), "name of the dataset"),
    Key("clip/media_id", Kind.BYTES, False, (1,), "YouTube id, or file stem"),
    Key("clip/data_path", Kind.BYTES, False, (1,), "path relative to the media root, or a URL"),
    Key("clip/start/timestamp", Kind.INT64, False, (1,), "start in the source, microseconds"),
    Key("clip/end/timestamp", Kind.INT64, False, (1,), "end in the source, microseconds"),
    Key("clip/label/index", Kind.INT64, False, (None,), "label indices, unique and ascending"),
    Key("clip/label/string", Kind.BYTES, False, (None,), "label names, in the order of the indices"),
    Key("clip/label/text", Kind.BYTES, False, (None,), "the same names, where DMVR looks for them"),
    Key("image/format", Kind.BYTES, False, (1,), 'always "JPEG"'),
    Key("image/height", Kind.INT64, False, (1,), "pixels"),
    Key("image/width", Kind.INT64, False, (1,), "pixels"),
    Key("image/channels", Kind.INT64, False, (1,), "always 3"),
    Key("image/frame_rate", Kind.FLOAT, False, (1,), "frames a second, always 25.0"),
    Key("melspec/feature/dimensions", Kind.INT64, False, (2,), "rows and mel bins of a step"),
    Key("melspec/feature/rate", Kind.FLOAT, False, (1,), "rows a second, always 100.0"),
    Key("melspec/feature/audio_sample_rate", Kind.FLOAT, False, (1,), "Hz"),
    Key("melspec/feature/num_samples", Kind.INT64, False, (1,), "valid rows, before padding"),
    Key("image/encoded", Kind.BYTES, True, (1,), "one JPEG a frame"),
    Key("image/timestamp", Kind.INT64, True, (1,), "microseconds in the source"),
    Key("melspec/feature/floats", Kind.FLOAT, True, (100, 128), "one step per started second, time-major"),
)


def _message(name: str, *fields: descriptor_pb2.FieldDescriptorProto) -> descriptor_pb2.DescriptorProto:
    return descriptor_pb2.DescriptorProto(name=name, field=fields)


def _field(name: str, number: int, type_: str, *, repeated: bool = False) -> descriptor_pb2.FieldDescriptorProto:
    field = _FIELD(name=name, number=number, label=_FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL)
    if type_[0].isupper():
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{_PACKAGE}.{type_}"
    else:
        field.type = getattr(_FIELD, f"TYPE_{type_.upper()}")
    return field


def _map_of(message: str, name: str, number: int, value: str) -> descriptor_pb2.DescriptorProto:
    """A message whose one field is `map<string, value>`."""
    entry_name = "".join(part.title() for part in name.split("_")) + "Entry"
    holder = _message(message, _field(name, number, f"{message}.{entry_name}", repeated=True))
    entry = _message(entry_name, _field("key", 1, "string"), _field("value", 2, value))
    entry.options.map_entry = True
    holder.nested_type.append(entry)
    return holder


def _feature() -> descriptor_pb2.DescriptorProto:
    feature = _message(
        "Feature",
        _field("bytes_list", 1, "BytesList"),
        _field("float_list", 2, "FloatList"),
        _field("int64_list", 3, "Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for field in feature.field:
        field.oneof_index = 0
    return feature


def _sequence_example_class():
    file = descriptor_pb2.FileDescriptorProto(name="mbt/schemas/example.proto", package=_PACKAGE, syntax="proto3")
    file.message_type.extend(
        [
            _message("BytesList", _field("value", 1, "bytes", repeated=True)),
            _message("FloatList", _field("value", 1, "float", repeated=True)),
            _message("Int64List", _field("value", 1, "int64", repeated=True)),
            _feature(),
            _map_of("Features", "feature", 1, "Feature"),
            _message("FeatureList", _field("feature", 1, "Feature", repeated=True)),
            _map_of("FeatureLists", "feature_list", 1, "FeatureList"),
            _message("SequenceExample", _field("context", 1, "Features"), _field("feature_lists", 2, "FeatureLists")),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.SequenceExample"))


SequenceExample = _sequence_example_class()


def serialize(example) -> bytes:
    """The one byte form of a record: protobuf's wire format with map keys in sorted order."""
    return example.SerializeToString(deterministic=True)
