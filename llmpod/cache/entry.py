r"""Not a store: one stored answer, and its form as a record of bytes.

A record, little-endian, padded with zeros to a multiple of 8:

| bytes | what | covered by |
|---|---|---|
| 4 | magic ``LPR2``: the format and its version | |
| 1 + 3 | state: live, moved (by tidying; not a use) or dead (contents zeroed) | |
| 4 | CRC-32 of the next 52 bytes: finds the next record, protects nothing | |
| 1 + 1 + 2 + 4 + 4 | kind, zero, lengths of header, body and request | CRC, MAC |
| 8 | stored_at, seconds since the epoch as a double | CRC, MAC |
| 32 | key | CRC, MAC |
| … | header (JSON), body, request (raw or zlib, as the header says) | MAC |
| 32 | HMAC-SHA256 | |

JSON and raw bytes, no pickle: reading a record cannot run anything. Unknown members of the header are ignored, so
a later version may add some. The key and all lengths are under the MAC: nothing can be cut, moved or swapped.

There is no fsync anywhere: after a power cut a record may be short or full of zeros, its MAC then fails, and a
cache may forget. What it may never do is invent.
"""

import hmac
import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Final

from llmpod.memo import LONGEST

MAGIC: Final = b"LPR2"
DEAD, LIVE, MOVED = 0, 1, 2
ENTRY, USES = 1, 2
FRONT: Final = struct.Struct("<4sB3xI")
COVERED: Final = struct.Struct("<BxHIId32s")
HEAD_BYTES: Final = FRONT.size + COVERED.size
MAC_BYTES: Final = 32
KEY_BYTES: Final = 32
REQUEST_BYTES: Final = 2**20  # a longer request is not kept with its answer
_PACK_BYTES: Final = 1024  # a shorter request is not worth compressing
_OBJECTS_BYTES: Final = 1000  # what Python needs around one entry in memory, measured with tracemalloc


class Corrupt(Exception):
    """A record that is not what was written here; the message says what is wrong with it."""


@dataclass
class Entry:
    """One complete answer. Nothing but its request changes once it is made; not ``frozen``, which costs 2 µs each.

    Attributes:
        key: digest of the question, 32 bytes.
        path: where it was asked.
        stream: ``body`` is a stream of events, byte-exact as the server sent it; else one JSON document.
        content_type: of the body.
        body: the bytes.
        stored_at: seconds since the epoch.
        model: the model the answer names; empty when it names none.
        has_usage: the answer says how many tokens were used.
        request: the question in canonical form, for ``cache why``; kept on disk only, and only up to 1 MiB:
            an entry that was handed to the cache has none any more.
        prebuilt: finished response buffers by name, attached with ``Cache.attach`` (which counts their bytes).
        tally: one number: hits since uses were last written down.
        header: of the record, for a request that is not compressed.
        size: bytes of the record, which is what the limit in bytes counts; less when the request is compressed.
    """

    key: bytes
    path: str
    stream: bool
    content_type: str
    body: bytes = field(repr=False)
    stored_at: float
    model: str
    has_usage: bool
    request: bytes | None = field(default=None, compare=False, repr=False)
    prebuilt: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    tally: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)
    size: int = field(init=False, compare=False, repr=False)
    header: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(self.key)}")
        self.header = _header(self.path, self.content_type, self.model, self.stream, self.has_usage)
        parts = len(self.header) + len(self.body) + len(self.kept_request)
        self.size = padded(HEAD_BYTES + parts + MAC_BYTES)

    @cached_property
    def etag(self) -> str:
        """A strong entity tag for the body in its stored form, quotes included (RFC 9110, 8.8.3)."""
        return f'"{sha256(self.body).hexdigest()[:32]}"'

    @property
    def kept_request(self) -> bytes:
        """As much of the request as the record keeps: all or nothing."""
        return self.request if self.request is not None and len(self.request) <= REQUEST_BYTES else b""

    @property
    def memory(self) -> int:
        """Bytes this entry takes in memory, its prebuilt buffers included and its request left out."""
        buffers = sum(map(len, self.prebuilt.values())) if self.prebuilt else 0
        return _OBJECTS_BYTES + len(self.body) + buffers

    def answering(self, key: bytes, body: bytes, request: bytes) -> "Entry":
        """A new entry for another question, made from this one; ``replace`` would share what is prebuilt."""
        return replace(self, key=key, body=body, request=request or None, prebuilt={}, tally=[0])

    def take_request(self) -> bytes:
        """Parts with the request, as far as the record keeps it: memory is for answers."""
        request, self.request = self.kept_request, None
        return request


def padded(length: int) -> int:
    """Bytes that a record of this length takes up in its segment."""
    return length + 7 & ~7


def _header(path: str, content_type: str, model: str, *flags: bool) -> bytes:
    """What stands before a body; the server chooses the name of the model."""
    short = len(path) + len(content_type) + len(model) <= LONGEST
    return (_spelled if short else _spelled.__wrapped__)(path, content_type, model, *flags)


@lru_cache(maxsize=1024)
def _spelled(path: str, content_type: str, model: str, *flags: bool) -> bytes:
    """Kept because few differ: one for each path, form and model."""
    stream, has_usage, *more = flags
    fields = {
        "path": path,
        "content_type": content_type,
        "model": model,
        "stream": stream,
        "has_usage": has_usage,
    }
    if any(more):
        fields["packed"] = True
    return json.dumps(fields, separators=(",", ":")).encode()


class Signer:
    """Makes and checks MACs with one key. Safe in any thread."""

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, b"", "sha256")

    def sign(self, data: bytes | memoryview) -> bytes:
        """HMAC-SHA256 of the data. Copying a prepared state costs half of keying a new one."""
        mac = self._keyed.copy()
        mac.update(data)
        return mac.digest()

    def check(self, record: bytes, start: int, end: int) -> bool:
        """Whether the MAC that stands at ``end`` is that of ``record[start:end]``."""
        mac = self.sign(memoryview(record)[start:end])
        return hmac.compare_digest(mac, record[end : end + MAC_BYTES])


def encode(entry: Entry, request: bytes, signer: Signer, *, pack: bool = False) -> bytes:
    """The record of an entry.

    Args:
        entry: what to store.
        request: what was asked; empty when that is not to be kept.
        signer: the directory's.
        pack: compress a long request. Takes about 10 µs a KB, so not on the event loop.
    """
    header = entry.header
    if pack and len(request) >= _PACK_BYTES:
        request = zlib.compress(request, 1)
        header = _header(
            entry.path,
            entry.content_type,
            entry.model,
            entry.stream,
            entry.has_usage,
            True,  # noqa: FBT003 - *flags
        )
    lengths = (len(header), len(entry.body), len(request))
    head = COVERED.pack(ENTRY, *lengths, entry.stored_at, entry.key)
    return _sealed(head, b"".join((head, header, entry.body, request)), signer)


def encode_uses(rows: bytes, at: float, signer: Signer) -> bytes:
    """The record of a list of uses; see ``walk.USE``."""
    head = COVERED.pack(USES, 0, len(rows), 0, at, bytes(KEY_BYTES))
    return _sealed(head, head + rows, signer)


def _sealed(head: bytes, covered: bytes, signer: Signer) -> bytes:
    front = FRONT.pack(MAGIC, LIVE, zlib.crc32(head))
    length = FRONT.size + len(covered) + MAC_BYTES
    return b"".join((front, covered, signer.sign(covered), bytes(padded(length) - length)))


def moved(record: bytes) -> bytes:
    """The same record as a copy that tidying makes: finding it again is not a use."""
    return b"%b%c%b" % (record[:4], MOVED, record[5:])


def erased(record: bytes) -> bytes:
    """What an unwanted record is overwritten with: its frame stays, so that the next one is found; all else goes."""
    return b"%b%c%b%b" % (record[:4], DEAD, record[5:HEAD_BYTES], bytes(len(record) - HEAD_BYTES))


def decode(record: bytes, key: bytes | None, signer: Signer) -> Entry:
    """The entry of a record that was stored for this key.

    Args:
        record: exactly its bytes.
        key: None: whatever key it was stored for.
        signer: the directory's.

    Raises:
        Corrupt: it is anything else.
    """
    if len(record) < HEAD_BYTES + MAC_BYTES:
        raise Corrupt("it is too short")
    magic, state, _ = FRONT.unpack_from(record)
    kind, header_bytes, body_bytes, request_bytes, stored_at, found = COVERED.unpack_from(record, FRONT.size)
    start = HEAD_BYTES + header_bytes
    end = start + body_bytes
    mac = end + request_bytes
    if magic != MAGIC or state == DEAD or kind != ENTRY or padded(mac + MAC_BYTES) != len(record):
        raise Corrupt("it is no entry of this version")
    if not signer.check(record, FRONT.size, mac):
        raise Corrupt("the MAC does not match")
    if key not in (None, found):
        raise Corrupt("it was stored for another request")
    try:
        fields = json.loads(record[HEAD_BYTES:start])
        request = zlib.decompress(record[end:mac]) if fields.get("packed") else record[end:mac]
        return Entry(
            key=found,
            path=fields["path"],
            stream=fields["stream"],
            content_type=fields["content_type"],
            body=record[start:end],
            stored_at=stored_at,
            model=fields["model"],
            has_usage=fields["has_usage"],
            request=request or None,
        )
    except (ValueError, KeyError, TypeError, zlib.error):
        raise Corrupt("the header lacks what this version needs") from None
