import google_crc32c
import numpy as np
import pytest
import tensorflow as tf

from mbt.pipeline.decode import decode
from mbt.pipeline.logmel import LOG_FLOOR, log_mel
from mbt.pipeline.record import Context, encode, mel_steps
from mbt.schemas.example import KEYS, Kind

CONTEXT = Context(
    id="clip \u00e9",
    dataset_name="d",
    media_id="m",
    data_path="a/m.mp4",
    start_us=500_000,
    label_indices=[1, 4],
    label_strings=["b", "e"],
)
DTYPES = {Kind.BYTES: tf.string, Kind.FLOAT: tf.float32, Kind.INT64: tf.int64}


@pytest.fixture(scope="module")
def decoded(make_media, ffmpeg_program, tmp_path_factory):
    media = make_media(tmp_path_factory.mktemp("record") / "m.mp4", seconds=2.0)
    return decode(str(media), 0, 1_300_000, program=ffmpeg_program)


def parse(payload: bytes):
    """As any TensorFlow program would, from the table of keys."""
    context, lists = {}, {}
    for key in KEYS:
        if not key.steps:
            fixed = None not in key.shape
            context[key.name] = (
                tf.io.FixedLenFeature(key.shape, DTYPES[key.kind]) if fixed else tf.io.VarLenFeature(DTYPES[key.kind])
            )
        else:
            lists[key.name] = tf.io.FixedLenSequenceFeature(key.shape, DTYPES[key.kind])
    return tf.io.parse_single_sequence_example(payload, context, lists)


def test_tensorflow_reads_every_key(decoded):
    context, lists = parse(encode(CONTEXT, decoded).payload)
    assert context["example/id"][0].numpy().decode() == "clip \u00e9"
    assert tf.sparse.to_dense(context["clip/label/index"]).numpy().tolist() == [1, 4]
    for key in ("clip/label/string", "clip/label/text"):
        assert tf.sparse.to_dense(context[key]).numpy().tolist() == [b"b", b"e"]
    assert context["clip/start/timestamp"].numpy() == [500_000]
    assert context["clip/end/timestamp"].numpy() == [1_800_000]
    assert context["image/frame_rate"].numpy() == [25.0]
    assert context["melspec/feature/num_samples"].numpy() == [130]
    assert lists["image/timestamp"].numpy()[:2].tolist() == [[500_000], [540_000]]
    assert len(lists["image/encoded"]) == 33  # 32.5, rounded up
    for jpeg in lists["image/encoded"].numpy()[:, 0]:
        assert tf.io.decode_jpeg(jpeg).shape == (48, 64, 3)
    mel = lists["melspec/feature/floats"].numpy()
    assert mel.shape == (2, 100, 128)
    np.testing.assert_array_equal(mel.reshape(-1, 128)[:130], log_mel(decoded.pcm, 130))
    assert (mel.reshape(-1, 128)[130:] == LOG_FLOOR).all()


def test_the_message_is_tensorflows_on_the_wire(decoded):
    payload = encode(CONTEXT, decoded).payload
    example = tf.train.SequenceExample.FromString(payload)
    assert example.SerializeToString(deterministic=True) == payload
    named = set(example.context.feature) | set(example.feature_lists.feature_list)
    assert named == {key.name for key in KEYS}


def test_pieces_point_at_their_bytes(decoded):
    record = encode(CONTEXT, decoded)
    values = [record.payload[piece["offset"] :][: piece["length"]] for piece in record.pieces]
    assert [google_crc32c.value(value) for value in values] == record.pieces["crc32c"].tolist()
    assert values[: record.num_frames] == list(decoded.frames)
    steps = np.frombuffer(b"".join(values[record.num_frames :]), "<f4").reshape(-1, 128)
    np.testing.assert_array_equal(steps[: record.num_mel_rows], log_mel(decoded.pcm, record.num_mel_rows))
    assert record.mel_sum == pytest.approx(steps[: record.num_mel_rows].sum(dtype=np.float64))


def test_mel_steps_pad_only_the_last():
    steps = mel_steps(np.zeros((100, 128), np.float32))
    assert steps.shape == (1, 100, 128) and not steps.any()
    assert mel_steps(np.zeros((101, 128), np.float32)).shape == (2, 100, 128)
