"""Media that mean harm, or were harmed: made from nothing, or from whole files by a seeded mutation."""

import random
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

# What ffmpeg says when memory runs out; here as the title of a whole file, and as its name.
FATAL = "Cannot allocate memory; malloc of size 99999999999 failed"
_SOUND_HZ = 8000
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, *parts: bytes) -> bytes:
    return box(kind, bytes(4), *parts)


def repeated_jpeg(jpeg: bytes, size: tuple[int, int], times: int, seconds: int = 1) -> bytes:
    """A valid MOV in which one JPEG is shown again and again, with silence for sound."""
    width, height = size
    samples = seconds * _SOUND_HZ
    head = box(b"ftyp", b"qt  ", bytes(4), b"qt  ")
    first = len(head) + 8
    picture = struct.pack(">6xH16xHHIIIH32sHh", 1, width, height, 0x480000, 0x480000, 0, 1, bytes(32), 24, -1)
    sound = struct.pack(">6xH8xHHHHI", 1, 1, 8, 0, 0, _SOUND_HZ << 16)
    delta = max(1, seconds * 90_000 // times)
    offsets = struct.pack(">I", times) + struct.pack(">I", first) * times
    tables = [
        _full(b"stsd", struct.pack(">I", 1), box(b"jpeg", picture)),
        _full(b"stts", struct.pack(">III", 1, times, delta)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, 1, 1)),
        _full(b"stsz", struct.pack(">II", len(jpeg), times)),
        _full(b"stco", offsets),
    ]
    heard = [
        _full(b"stsd", struct.pack(">I", 1), box(b"raw ", sound)),
        _full(b"stts", struct.pack(">III", 1, samples, 1)),
        _full(b"stsc", struct.pack(">IIII", 1, 1, samples, 1)),
        _full(b"stsz", struct.pack(">II", 1, samples)),
        _full(b"stco", struct.pack(">II", 1, first + len(jpeg))),
    ]
    tracks = [
        _track(1, b"vide", box(b"vmhd", bytes(12)), tables, 90_000, delta * times, seconds),
        _track(2, b"soun", box(b"smhd", bytes(8)), heard, _SOUND_HZ, samples, seconds),
    ]
    header = _full(b"mvhd", struct.pack(">IIIII", 0, 0, 1000, 1000 * seconds, 0x10000), bytes(72), struct.pack(">I", 3))
    return head + box(b"mdat", jpeg, b"\x80" * samples) + box(b"moov", header, *tracks)


def _track(number: int, kind: bytes, media: bytes, tables: list[bytes], ticks: int, length: int, seconds: int) -> bytes:
    header = box(b"tkhd", struct.pack(">IIIIII", 15, 0, 0, number, 0, 1000 * seconds), bytes(16), _MATRIX, bytes(8))
    data = box(b"dinf", _full(b"dref", struct.pack(">I", 1), box(b"url ", struct.pack(">I", 1))))
    inner = box(b"minf", media, data, box(b"stbl", *tables))
    described = _full(b"mdhd", struct.pack(">IIIII", 0, 0, ticks, length, 0))
    return box(b"trak", header, box(b"mdia", described, _full(b"hdlr", b"mhlr", kind, bytes(13)), inner))


def jpeg(program: str, source: str, *options: str) -> bytes:
    """One JPEG of a source of ffmpeg's."""
    words = ["-v", "error", "-bitexact", "-f", "lavfi", "-i", source, "-frames:v", "1", "-pix_fmt", "yuvj420p"]
    return subprocess.run(
        [program, *words, *options, "-f", "mjpeg", "-"], check=True, capture_output=True, stdin=subprocess.DEVNULL
    ).stdout


def bomb(program: str, times: int = 20_000) -> bytes:
    """A JPEG of 16 megapixels, 20,000 times a second."""
    return repeated_jpeg(jpeg(program, "color=gray:size=4096x4096"), (4096, 4096), times)


def wide(program: str, times: int = 350, seconds: int = 14) -> bytes:
    """A small file that gives a record of hundreds of megabytes: 4096 x 256 pixels of noise, kept as they are."""
    noise = jpeg(program, "nullsrc=size=4096x256,geq=random(1)*255:128:128", "-q:v", "2")
    return repeated_jpeg(noise, (4096, 256), times, seconds)


_SEEDS = {
    "h264.mp4": (),
    "fragments.mp4": ("-movflags", "frag_keyframe+empty_moov", "-g", "5"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    "vp8.mkv": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libvorbis"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none:pools=1"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    "mpeg1.mpg": ("-c:v", "mpeg1video", "-c:a", "mp2"),
    "flv1.flv": ("-c:v", "flv", "-c:a", "mp3", "-ar", "22050"),
    "wmv2.asf": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "mjpeg.mov": ("-c:v", "mjpeg", "-c:a", "pcm_s16le"),
    "theora.ogg": ("-c:v", "libtheora", "-c:a", "libvorbis"),
    "mpeg2.mxf": ("-c:v", "mpeg2video", "-c:a", "pcm_s16le", "-ar", "48000"),
    "mpeg4.nut": ("-c:v", "mpeg4", "-c:a", "flac"),
    "ffv1.mkv": ("-c:v", "ffv1", "-c:a", "flac"),
}


def seeds(program: str, folder: Path) -> dict[str, bytes]:
    """Whole files of a second by their names, in many containers and codecs."""
    return {name: _seed(program, folder, name) for name in _SEEDS}


def _seed(program: str, folder: Path, name: str) -> bytes:
    path = folder / name
    sources = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-f", "lavfi", "-i", "sine=frequency=440"]
    words = ["-v", "error", "-y", "-bitexact", *sources, "-t", "1", "-pix_fmt", "yuv420p", *_SEEDS[name], str(path)]
    subprocess.run([program, *words], check=True, stdin=subprocess.DEVNULL)
    return path.read_bytes()


Mutation = Callable[[random.Random, bytearray], bytearray]


def _spots(draw: random.Random, data: bytearray, most: int) -> Iterator[int]:
    for _ in range(draw.randint(1, most)):
        yield draw.randrange(max(1, len(data) - 8))


def _flip_bits(draw: random.Random, data: bytearray) -> bytearray:
    for at in _spots(draw, data, 40):
        data[at] ^= 1 << draw.randrange(8)
    return data


def _flip_head(draw: random.Random, data: bytearray) -> bytearray:
    for _ in range(draw.randint(1, 12)):
        data[draw.randrange(min(600, len(data)))] ^= 1 << draw.randrange(8)
    return data


def _noise(draw: random.Random, data: bytearray) -> bytearray:
    at, count = draw.randrange(len(data)), draw.randint(1, 2000)
    data[at : at + count] = draw.randbytes(min(count, len(data) - at))
    return data


def _zeros(draw: random.Random, data: bytearray) -> bytearray:
    at, count = draw.randrange(len(data)), draw.randint(1, 5000)
    data[at : at + count] = bytes(min(count, len(data) - at))
    return data


def _truncate(draw: random.Random, data: bytearray) -> bytearray:
    return data[: draw.randrange(len(data))]


def _behead(draw: random.Random, data: bytearray) -> bytearray:
    return data[draw.randrange(len(data)) :]


def _remove(draw: random.Random, data: bytearray) -> bytearray:
    at = draw.randrange(len(data))
    del data[at : at + draw.randint(1, 3000)]
    return data


def _repeat(draw: random.Random, data: bytearray) -> bytearray:
    at, count = draw.randrange(len(data)), draw.randint(1, 3000)
    return data[: at + count] + data[at:]


def _extreme_numbers(draw: random.Random, data: bytearray) -> bytearray:
    for at in _spots(draw, data, 4):
        data[at : at + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", bytes(4)))
    return data


_TABLES = (b"stts", b"stsz", b"stsc", b"stco", b"ctts", b"stss", b"stsd", b"elst", b"trun", b"tfhd", b"dref", b"avcC")


def _found(draw: random.Random, data: bytearray, names: tuple[bytes, ...]) -> int | None:
    """Where one of these words stands."""
    places = [at for name in names for at in _all(data, name)]
    return draw.choice(places) if places else None


def _all(data: bytearray, word: bytes) -> Iterator[int]:
    at = data.find(word)
    while at >= 0:
        yield at
        at = data.find(word, at + 1)


def _sample_tables(draw: random.Random, data: bytearray) -> bytearray:
    """A count, or a value, of a sample table that says too much; elsewhere any number near the beginning."""
    at = _found(draw, data, _TABLES)
    at = draw.randrange(max(1, min(400, len(data) - 8))) if at is None else at + 8 + 4 * draw.randrange(4)
    data[at : at + 4] = struct.pack(">I", draw.choice((1 << 31, 0xFFFFFFF0, 0x0FFFFFFF, 0x7FFFFFFF, 3 << 26, 1 << 20)))
    return data


def _lying_sizes(draw: random.Random, data: bytearray) -> bytearray:
    """The size of a box that is not its own."""
    at = _found(draw, data, (*_TABLES, b"moov", b"mdat", b"trak", b"mdia", b"stbl", b"moof", b"ftyp", b"RIFF", b"movi"))
    at = 4 if at is None or at < 4 else at
    data[at - 4 : at] = struct.pack(">I", draw.choice((0, 1, 7, 8, len(data), 0x7FFFFFFF, 0xFFFFFFFF)))
    return data


def _swapped_boxes(draw: random.Random, data: bytearray) -> bytearray:
    """Two names of boxes exchanged; elsewhere two pieces of the file."""
    first, second = (_found(draw, data, (*_TABLES, b"trak", b"mdia", b"minf", b"udta")) for _ in range(2))
    if first is None or second is None:
        first, second = sorted(draw.randrange(max(1, len(data) - 4)) for _ in range(2))
    data[first : first + 4], data[second : second + 4] = data[second : second + 4], data[first : first + 4]
    return data


def _huge_pictures(draw: random.Random, data: bytearray) -> bytearray:
    """The size of the picture, wherever it is written, made another."""
    wanted = draw.choice(((65535, 65535), (16384, 1), (1, 16384), (4096, 4096), (0, 0)))
    for form in (">HH", "<HH", "<II", ">II"):
        new = struct.pack(form, *wanted)
        for at in list(_all(data, struct.pack(form, 64, 48))):
            data[at : at + len(new)] = new
    return data


def _tags(draw: random.Random, data: bytearray) -> bytearray:
    """Words that ffmpeg says of itself, in place of a tag or behind the file."""
    text = draw.choice((FATAL, "[fatal] moov atom not found", "\n[error] Cannot allocate memory\n")).encode()
    at = _found(draw, data, (b"VideoHandler", b"SoundHandler", b"ENCODER", b"Lavf", b"DURATION"))
    if at is None:
        return data + text
    data[at : at + len(text)] = text
    return data


def _playlist(draw: random.Random, data: bytearray) -> bytearray:
    """A text that names other files, with media behind it."""
    address = draw.choice(("file:///etc/passwd", "http://127.0.0.1:9/x.ts", "/etc/hostname", "concat:/etc/passwd|x"))
    texts = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{address}'\n",
        f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}" width="9" height="9"/></svg>',
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=control:{address}\n",
        f'<?xml version="1.0"?><MPD><Period><BaseURL>{address}</BaseURL></Period></MPD>',
    )
    return bytearray(draw.choice(texts).encode()) + (data if draw.random() < 0.5 else b"")


def _tiny(draw: random.Random, data: bytearray) -> bytearray:
    return data[: draw.choice((0, 1, 2, 4, 7, 8, 12, 16, 32))]


def _two_files(draw: random.Random, data: bytearray) -> bytearray:
    return data[: draw.randrange(len(data))] + data


MUTATIONS: tuple[Mutation, ...] = (
    *(_flip_bits, _flip_head, _noise, _zeros, _truncate, _behead, _remove, _repeat, _extreme_numbers),
    *(_sample_tables, _lying_sizes, _swapped_boxes, _huge_pictures, _tags, _playlist, _tiny, _two_files),
)


def mutated(draw: random.Random, number: int, whole: dict[str, bytes]) -> tuple[str, bytes]:
    """A new file: its kind of mutation by turns, its seed by chance; a name that tells both, or that lies."""
    mutation = MUTATIONS[number % len(MUTATIONS)]
    seed = draw.choice(sorted(whole))
    extension = Path(seed).suffix if draw.random() < 0.9 else Path(draw.choice(sorted(whole))).suffix
    phrase = f" {FATAL}" if draw.random() < 0.02 else ""
    name = f"{number:05d}{mutation.__name__}-{Path(seed).stem}{phrase}{extension}"
    return name, bytes(mutation(draw, bytearray(whole[seed])))


def blockers(program: str, folder: Path, *, slow: bool = True) -> dict[str, bytes]:
    """The worst that is known, by names; some take a minute each."""
    plain = _seed(program, folder, "h264.mp4")
    titled = folder / "titled.mp4"
    words = ["-v", "error", "-y", "-i", str(folder / "h264.mp4"), "-c", "copy", "-metadata", f"title={FATAL}"]
    subprocess.run([program, *words, str(titled)], check=True, stdin=subprocess.DEVNULL)
    quick = {
        "plain.mp4": plain,
        "title.mp4": titled.read_bytes(),
        f"{FATAL}.mp4": plain,
        "count.mp4": _with_count(plain, b"stsz", 0x0FFFFFFF),
        "stts.mp4": _with_count(plain, b"stts", 0x0FFFFFFF),
    }
    return quick | (
        {"bomb.mov": bomb(program), "wide1.mov": wide(program), "wide2.mov": wide(program, 349)} if slow else {}
    )


def _with_count(data: bytes, table: bytes, count: int) -> bytes:
    """The number of entries that a sample table says it has, changed."""
    at = data.index(table) + (12 if table == b"stsz" else 8)
    return data[:at] + struct.pack(">I", count) + data[at + 4 :]
