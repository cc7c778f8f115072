"""What senders send, good and bad: records by a grammar, which knows what must become of each, and by bytes flipped.

The grammar makes a record together with its truth: how many readings are in it and why each other element is set
aside. The bytes of a record are spoiled at random by ``spoil``; what then is in them is told by ``elements``, which
knows nothing of the decoder.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.dead_letter import Reason

#: Event time of the first reading, milliseconds: all record timestamps are after it, and no broker minds.
START_MS = 1_700_000_000_000

#: Between two readings of a stream, and between the grammar's ticks.
STEP_MS = 1000


@dataclass(frozen=True, slots=True)
class Sample:
    """A record and what must become of it: ``good`` readings, and by reason the elements that are set aside.

    ``bad`` None: the bytes were spoiled, and only the number of elements is known.
    """

    kind: str
    key: bytes | None
    value: bytes | None
    stamp_ms: int
    good: int
    bad: Counter[Reason] | None = field(default_factory=Counter)

    @property
    def elements(self) -> int:
        """How many readings or dead letters there must be, in elements."""
        return elements(self.value) if self.bad is None else self.good + self.bad.total()


def elements(value: bytes | None) -> int:
    """How many elements a record has that are to be accounted for: those of a list, else the record is one."""
    try:
        document = json.loads(value or b"")
    except (ValueError, RecursionError):
        return 1
    return max(len(document), 1) if isinstance(document, list) else 1


class Grammar:
    """Records of some streams in turn, good ones and bad ones, for a model with these channels.

    The readings of a stream are ``STEP_MS`` apart, so that all of them can be scored, whatever lies between them.
    """

    def __init__(self, channels: Sequence[str], seed: int, streams: int = 20) -> None:
        self.rng = random.Random(seed)
        self.channels = tuple(channels)
        self._streams = [f"machine-{n}" for n in range(streams)]
        self._ticks = [0] * streams
        self._n = 0
        self.bad: dict[str, Callable[[], Sample]] = {name[4:]: getattr(self, name) for name in _names("bad_")}
        self.good: dict[str, Callable[[], Sample]] = {name[5:]: getattr(self, name) for name in _names("good_")}

    def normal(self, count: int) -> Iterator[Sample]:
        """Readings of which every one is fine, one a record."""
        for _ in range(count):
            yield self.good_reading()

    def any(self, count: int, garbage: float, heavy: float = 0.0) -> Iterator[Sample]:
        """A mixture, ``garbage`` of it bad, spoiled bytes a third of that; ``heavy``: how much of it may be large."""
        good = list(self.good.values())
        light = [make for name, make in self.bad.items() if name not in HEAVY]
        large = [self.bad[name] for name in sorted(HEAVY)]
        for _ in range(count):
            if self.rng.random() >= garbage:
                yield self.good_reading() if self.rng.random() < 0.8 else self.rng.choice(good)()
            elif self.rng.random() < 1 / 3:
                yield self.spoiled()
            else:
                yield self.rng.choice(large if self.rng.random() < heavy else light)()

    # -- what is in a record -----------------------------------------------------------------------------------------

    def reading(self, **changes: object) -> dict[str, object]:
        """The next reading of some stream; a field that is given as ``...`` is left out."""
        self._n = (self._n + 1) % len(self._streams)
        self._ticks[self._n] += 1
        made: dict[str, object] = {
            "stream": self._streams[self._n],
            "timestamp": START_MS + self._ticks[self._n] * STEP_MS,
            "values": {channel: round(self.rng.gauss(0, 0.1), 3) for channel in self.channels},
            **changes,
        }
        return {name: value for name, value in made.items() if value is not ...}

    def values(self, **changes: object) -> dict[str, object]:
        """The values of a reading, with some channels changed by their place: c0, c1 …"""
        places = {f"c{n}": channel for n, channel in enumerate(self.channels)}
        return dict.fromkeys(self.channels, 0.1) | {places.get(n, n): value for n, value in changes.items()}

    def sample(
        self, kind: str, value: object, good: int = 0, *, bad: Reason | Counter[Reason] | None = None, **record: object
    ) -> Sample:
        """A record of the value, as JSON unless it is bytes."""
        body = value if isinstance(value, bytes) or value is None else dumps(value)
        reasons = bad if isinstance(bad, Counter) else Counter() if bad is None else Counter([bad])
        named = {"key": self._streams[self._n].encode(), "stamp_ms": START_MS + 10_000_000 * STEP_MS, **record}
        return Sample(kind, value=body, good=good, bad=reasons, **named)  # type: ignore[arg-type]

    def spoiled(self) -> Sample:
        """A record of which some bytes are others, or are gone."""
        whole = self.rng.choice([self.good_reading, self.good_list])().value
        assert whole is not None
        return Sample("spoiled", b"k", spoil(self.rng, whole), START_MS + 10_000_000 * STEP_MS, 0, None)

    # -- good ones ---------------------------------------------------------------------------------------------------

    def good_reading(self) -> Sample:
        return self.sample("reading", self.reading(), 1)

    def good_list(self) -> Sample:
        count = self.rng.randint(1, 6)
        return self.sample("list", [self.reading() for _ in range(count)], count)

    def good_part(self) -> Sample:
        channel = self.rng.choice(self.channels)
        return self.sample("part", self.reading(values={channel: self.rng.choice([0.5, None, 7])}), 1)

    def good_all_missing(self) -> Sample:
        return self.sample("all missing", self.reading(values=dict.fromkeys(self.channels)), 1)

    def good_more(self) -> Sample:
        more = {"unit": "°C", "tags": [1, {"a": None}], "values2": {}}
        return self.sample("more fields", self.reading(**more), 1)

    def good_unknown_channels(self) -> Sample:
        others = {f"other-{n}": n for n in range(self.rng.choice([1, 40]))}
        return self.sample("unknown channels", self.reading(values=self.values(**others)), 1)

    def good_times(self) -> Sample:
        made = self.reading()
        ms = int(str(made["timestamp"]))
        text = datetime.fromtimestamp(ms / 1000, UTC).isoformat()
        time = self.rng.choice([float(ms), ms + 0.25, text, text.replace("+00:00", "Z"), text.replace("+00:00", "")])
        return self.sample("times", made | {"timestamp": time}, 1)

    def good_from_key(self) -> Sample:
        made = self.reading()
        key = str(made.pop("stream")).encode()
        return self.sample("stream from the key", made, 1, key=key)

    def good_from_record(self) -> Sample:
        made = self.reading()
        stamp = int(str(made.pop("timestamp")))
        return self.sample("time from the record", made, 1, stamp_ms=stamp)

    def good_repeated_key(self) -> Sample:
        text = dumps(self.reading())
        return self.sample("repeated key", b'{"values":7,"stream":null,' + text[1:], 1)

    def good_numbers(self) -> Sample:
        odd = self.rng.choice(["-0.0", "5e-324", "1e-400", "123456789012345678", "3.4028235e38", "1E2", "-1.5e-45"])
        channel = dumps(self.channels[0])
        text = dumps(self.reading(values=...))[:-1] + b',"values":{' + channel + b":" + odd.encode() + b"}}"
        # alone in a stream of its own: such numbers are normal nowhere
        return self.sample("numbers", text.replace(b'"machine-', b'"odd-machine-'), 1)

    def good_duplicate(self) -> Sample:
        made = self.reading()
        return self.sample("duplicate", [made, made], 2)

    def good_late(self) -> Sample:
        return self.sample("late", self.reading(timestamp=self.rng.randrange(START_MS)), 1)

    def good_names(self) -> Sample:
        name = self.rng.choice(["x" * 1024, "\0", "a\nb\x1b[31m", "\u202e", "İ", "😀", "' OR 1=1 --", "../../etc"])
        return self.sample("names", self.reading(stream=name, timestamp=START_MS + self.rng.randrange(10**6)), 1)

    # -- bad ones ----------------------------------------------------------------------------------------------------

    def bad_empty(self) -> Sample:
        return self.sample("empty", self.rng.choice([None, b"", b" \n", b"null", b"[]", b"[ ]"]), bad=Reason.EMPTY)

    def bad_truncated(self) -> Sample:
        text = dumps(self.reading())
        return self.sample("truncated", text[: self.rng.randrange(1, len(text))], bad=Reason.NOT_JSON)

    def bad_deep(self) -> Sample:
        depth = self.rng.choice([1100, 100_000])
        opened = self.rng.choice([b"[", b'{"values":', b'{"stream":"s","timestamp":1,"values":{"a":['])
        return self.sample("deep", opened * depth, bad=Reason.NOT_JSON)

    def bad_deep_but_closed(self) -> Sample:
        return self.sample("deep and closed", b"[" * 20_000 + b"]" * 20_000, bad=Reason.NOT_JSON)

    def bad_constant(self) -> Sample:
        token = self.rng.choice([b"NaN", b"Infinity", b"-Infinity"])
        return self.sample("constant", self.raw_value(token), bad=Reason.NOT_A_NUMBER)

    def bad_range(self) -> Sample:
        number = self.rng.choice([b"1e308", b"-1e39", b"3.4028236e38", b"1e400", b"-1e999999"])
        return self.sample("range", self.raw_value(number), bad=Reason.OUT_OF_RANGE)

    def bad_digits(self) -> Sample:
        digits = self.rng.choice([400, 100_000])
        return self.sample("digits", self.raw_value(b"9" * digits), bad=Reason.OUT_OF_RANGE)

    def bad_number(self) -> Sample:
        wrong = self.rng.choice(["1", "", True, False, {}, [], [1], {"v": 1}])
        return self.sample("number", self.reading(values=self.values(c0=wrong)), bad=Reason.NOT_A_NUMBER)

    def bad_stream(self) -> Sample:
        wrong = self.rng.choice([None, "", 5, 1.5, True, [], {}, ["a"], "x" * 1025, "y" * 1_000_000])
        return self.sample("stream", self.reading(stream=wrong), bad=Reason.STREAM)

    def bad_key(self) -> Sample:
        key = self.rng.choice([None, b"", b"\xff\xfe", b"\xed\xa0\x80", b"k" * 1025, b"k" * 300_000])
        return self.sample("key", self.reading(stream=...), bad=Reason.STREAM, key=key)

    def bad_time(self) -> Sample:
        wrong = self.rng.choice(
            [None, True, [], {}, "", "yesterday", "2024-13-01T00:00:00Z", "1969-12-31T23:59:59Z", -1, -1e300, 1e300,
             10**16, 2**63, "9999-12-31T23:59:59Z", "2024-01-01T00:00:00+99:00", "0" * 100_000, "٢٠٢٤-٠١-٠١T٠٠:٠٠:٠٠",
             "0001-01-01T00:00:00+23:59", "2024-01-01T00:00:00\0Z"]
        )  # fmt: skip
        return self.sample("time", self.reading(timestamp=wrong), bad=Reason.TIMESTAMP)

    def bad_record_time(self) -> Sample:
        return self.sample("time of the record", self.reading(timestamp=...), bad=Reason.TIMESTAMP, stamp_ms=-1)

    def bad_ahead(self) -> Sample:
        stamp = START_MS + self.rng.randrange(3600_001, 10**12)
        return self.sample("ahead", self.reading(timestamp=stamp), bad=Reason.AHEAD, stamp_ms=START_MS)

    def bad_values(self) -> Sample:
        wrong = self.rng.choice([..., None, 5, "x", [], [1, 2, 3], True])
        return self.sample("values", self.reading(values=wrong), bad=Reason.VALUES)

    def bad_channels(self) -> Sample:
        others = {f"{self.rng.random()}": 1 for _ in range(self.rng.choice([0, 1, 5000]))}
        return self.sample("channels", self.reading(values=others), bad=Reason.NO_KNOWN_CHANNEL)

    def bad_kind(self) -> Sample:
        wrong = self.rng.choice([5, "text", True, 1.5])
        return self.sample("kind", dumps(wrong), bad=Reason.NOT_A_READING)

    def bad_utf8(self) -> Sample:
        wrong = self.rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"])
        return self.sample("utf-8", dumps(self.reading(stream="Ä")).replace("Ä".encode(), wrong), bad=Reason.NOT_JSON)

    def bad_surrogate(self) -> Sample:
        text = dumps(self.reading()).replace(b'"machine', b'"\\ud800machine')
        return self.sample("surrogate", text, bad=Reason.NOT_JSON)

    def bad_encoding(self) -> Sample:
        text = dumps(self.reading()).decode()
        encoding = self.rng.choice(["utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
        return self.sample("encoding", text.encode(encoding), bad=Reason.NOT_JSON)

    def bad_format(self) -> Sample:
        return self.sample("format", self.rng.choice(other_formats(dumps(self.reading()))), bad=Reason.NOT_JSON)

    def bad_two(self) -> Sample:
        text = dumps(self.reading())
        joint = self.rng.choice([b"", b"\n", b","])
        return self.sample("two in one", text + joint + text, bad=Reason.NOT_JSON)

    def bad_elements(self) -> Sample:
        """A list of good and bad ones: only the bad are set aside."""
        count = self.rng.randint(1, 8)
        wrong = [(5, Reason.NOT_A_READING), ({"stream": 1}, Reason.STREAM), ([], Reason.NOT_A_READING)]
        made: list[object] = [self.reading() for _ in range(count)]
        bad: Counter[Reason] = Counter()
        for _ in range(self.rng.randint(1, 5)):
            element, reason = self.rng.choice(wrong)
            made.insert(self.rng.randrange(len(made) + 1), element)
            bad[reason] += 1
        return self.sample("elements", made, count, bad=bad)

    def bad_constants_in_a_list(self) -> Sample:
        """A list that is no JSON for the sake of one element: the others are readings all the same."""
        good, bad = [dumps(self.reading()) for _ in range(3)], self.raw_value(b"NaN")
        value = b"[" + b",".join([*good, bad]) + b"]"
        return self.sample("constants in a list", value, 3, bad=Reason.NOT_A_NUMBER)

    def bad_many_elements(self) -> Sample:
        value = b"[" + b",".join([b"0"] * 5000) + b"]"
        return self.sample("many elements", value, bad=Counter({Reason.NOT_A_READING: 5000}))

    def bad_large(self) -> Sample:
        """As large as a record may be by default, and bad at its end."""
        value = self.rng.choice([b"x" * 1_000_000, b"[" + b"0," * 500_000, b'{"a":"' + b"\\u0000" * 160_000 + b'"'])
        return self.sample("large", value, bad=Reason.NOT_JSON)

    def raw_value(self, token: bytes) -> bytes:
        """A reading whose first channel is these bytes."""
        text = dumps(self.reading(values=self.values(c0="TOKEN")))
        return text.replace(b'"TOKEN"', token)


#: Kinds of which one record may have 100 kB and more: as many as of the others would be gigabytes in a million.
HEAVY = frozenset({"deep", "digits", "large", "many_elements", "key", "stream", "time", "channels", "deep_but_closed"})


def _names(prefix: str) -> list[str]:
    return [name for name in vars(Grammar) if name.startswith(prefix)]


def dumps(value: object) -> bytes:
    """JSON as most senders write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def other_formats(text: bytes) -> list[bytes]:
    """The same in other clothes: Avro behind a schema registry's header, Protocol Buffers, gzip, pickle, a picture …"""
    avro = b"\0" + struct.pack(">i", 7) + b"\x10machine-" + struct.pack("<d", 1.5)
    protobuf = b"\x0a\x09machine-1\x10\xd2\x09\x1d\x00\x00\x80\x3f"
    pickled = b"\x80\x04cos\nsystem\n\x8c\x05false\x85R."
    return [avro, protobuf, gzip.compress(text, mtime=0), zlib.compress(text), pickled, text.replace(b'"', b"'"),
            b"stream,timestamp,a\ns,1,2\n", b"<reading/>", b"---\nstream: s\n", b"\x89PNG\r\n\x1a\n" + text,
            b"\xde\xad\xbe\xef" * 20, b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"]  # fmt: skip


def spoil(rng: random.Random, whole: bytes) -> bytes:
    """Bytes of it flipped, cut out, doubled, put elsewhere."""
    made = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        at = rng.randrange(len(made) + 1)
        match rng.randrange(6):
            case 0:
                made[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del made[at : at + rng.choice([1, 2, 10])]
            case 2:
                made[at:at] = made[at : at + rng.choice([1, 5, 30])]
            case 3:
                made[at:at] = rng.choice([b"[", b"]", b"{", b"}", b",", b'"', b":", b"\\", b"\0", b"NaN", b"-", b"e9"])
            case 4:
                made[at : at + 4] = rng.randbytes(4)
            case _:
                del made[at:]
    return bytes(made)


# -- images ----------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *, depth: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """A PNG by hand, of whatever it claims; ``data`` is unpacked image data."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + header + more + body + png_chunk(b"IEND", b"")


def pictures(rng: random.Random, height: int, width: int) -> dict[str, bytes]:
    """Pictures of every kind, by name; those called ``good …`` are grey and of this size."""
    from PIL import Image

    def saved(image: Image.Image, kind: str, **options: object) -> bytes:
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    grey = Image.frombytes("L", (width, height), rng.randbytes(width * height))
    colour, lots = grey.convert("RGB"), bytes(30_000_000)
    made = {
        "good png": saved(grey, "PNG"),
        "good jpeg": saved(grey, "JPEG"),
        "good progressive jpeg": saved(grey, "JPEG", progressive=True),
        "good with data beyond the image": png(width, height, lots),
        "good black and white": saved(grey.convert("1"), "PNG"),
        "good with transparency": saved(grey.convert("LA"), "PNG"),
        "good 16 bit": saved(grey.convert("I;16"), "PNG"),
        "good animated": saved(grey, "PNG", save_all=True, append_images=[grey, grey]),
        "good raw": rng.randbytes(width * height),
        "1×1 png": saved(Image.new("L", (1, 1)), "PNG"),
        "1×1 jpeg": saved(Image.new("L", (1, 1)), "JPEG"),
        "colour": saved(colour, "PNG"),
        "palette": saved(colour.convert("P"), "PNG"),
        "cmyk": saved(colour.convert("CMYK"), "JPEG"),
        "bomb of 30,000×30,000": png(30_000, 30_000, lots),
        "bomb of 2³¹−1": png(2**31 - 1, 2**31 - 1, lots),
        "jpeg of 65,500×65,500": jpeg_of(65_500, 65_500, saved(grey, "JPEG")),
        "jpeg of a million scans": scans(saved(Image.new("L", (width, height)), "JPEG", progressive=True), 1_000_000),
        "text bomb": png(width, height, b"", more=png_chunk(b"zTXt", b"a\0\0" + zlib.compress(lots, 9))),
        "profile bomb": png(width, height, b"", more=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(lots, 9))),
        "no data": png(width, height, b""),
        "half a png": saved(grey, "PNG")[: width * height // 2],
        "half a jpeg": saved(grey, "JPEG")[:300],
        "gif": saved(grey, "GIF"),
        "raw, one byte less": rng.randbytes(width * height - 1),
        "raw, one byte more": rng.randbytes(width * height + 1),
        "png header only": b"\x89PNG\r\n\x1a\n",
        "jpeg header only": b"\xff\xd8\xff",
        "npy": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n" + bytes(40),
    }
    made |= {f"spoiled {name}": spoil(rng, value) for name, value in list(made.items()) if len(value) < 100_000}
    return made


def jpeg_of(width: int, height: int, jpeg: bytes) -> bytes:
    """A JPEG that claims another size."""
    at = min(found for marker in (b"\xff\xc0", b"\xff\xc2") if (found := jpeg.find(marker)) >= 0)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def scans(jpeg: bytes, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until it has about this many bytes more."""
    at = jpeg.rfind(b"\xff\xda")
    scan = jpeg[at : jpeg.rfind(b"\xff\xd9")]
    return jpeg[:at] + scan * (count // len(scan)) + jpeg[at:]
