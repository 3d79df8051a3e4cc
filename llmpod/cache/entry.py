r"""Not a store: one stored answer, and its form as a record of bytes.

A record is: magic ``LLMPOD1\n`` · length of the header (4 bytes, big-endian) · length of the body (8) · header
(JSON) · body · HMAC-SHA256 (32) over all before it. The header repeats the key, so a record under another's name
is noticed; both lengths are under the MAC, so nothing can be cut or moved. JSON and raw bytes, no pickle: reading a
record cannot run anything. Unknown members of the header are ignored, so a later version may add some.

There is no fsync anywhere: after a power cut a record may be short or full of zeros, its MAC then fails, and a
cache may forget. What it may never do is invent.
"""

import hmac
import json
import struct
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Final

MAGIC: Final = b"LLMPOD1\n"
_PREFIX: Final = struct.Struct(">8sIQ")
MAC_BYTES: Final = 32
KEY_BYTES: Final = 32
_OBJECTS_BYTES: Final = 900  # what Python needs around one entry in memory, measured with tracemalloc


class Corrupt(Exception):
    """A record that is not what was written under this name; the message says what is wrong with it."""


@dataclass(frozen=True)
class Entry:
    """One complete answer.

    Attributes:
        key: digest of the question, 32 bytes.
        path: where it was asked.
        stream: ``body`` is a stream of events, byte-exact as the server sent it; else one JSON document.
        content_type: of the body.
        body: the bytes.
        stored_at: seconds since the epoch.
        model: the model the answer names; empty when it names none.
        has_usage: the answer says how many tokens were used.
        prebuilt: finished response buffers by name, attached with ``Cache.attach`` (which counts their bytes).
    """

    key: bytes
    path: str
    stream: bool
    content_type: str
    body: bytes = field(repr=False)
    stored_at: float
    model: str
    has_usage: bool
    prebuilt: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(self.key)}")

    @cached_property
    def etag(self) -> str:
        """A strong entity tag for the body in its stored form, quotes included (RFC 9110, 8.8.3)."""
        return f'"{sha256(self.body).hexdigest()[:32]}"'

    @cached_property
    def header(self) -> bytes:
        """The record's header."""
        fields = {
            "key": self.key.hex(),
            "path": self.path,
            "stream": self.stream,
            "content_type": self.content_type,
            "stored_at": self.stored_at,
            "model": self.model,
            "has_usage": self.has_usage,
        }
        return json.dumps(fields, separators=(",", ":")).encode()

    @property
    def size(self) -> int:
        """Bytes of the record, which is what the limit in bytes counts."""
        return _PREFIX.size + len(self.header) + len(self.body) + MAC_BYTES

    @property
    def memory(self) -> int:
        """Bytes this entry takes in memory, its prebuilt buffers included."""
        return _OBJECTS_BYTES + len(self.body) + sum(map(len, self.prebuilt.values()))


def encode(entry: Entry, mac_key: bytes) -> tuple[bytes, bytes, bytes]:
    """The record in three parts (head, body, MAC), so that the body is not copied."""
    head = _PREFIX.pack(MAGIC, len(entry.header), len(entry.body)) + entry.header
    mac = hmac.new(mac_key, head, "sha256")
    mac.update(entry.body)
    return head, entry.body, mac.digest()


def decode(record: bytes, key: bytes, mac_key: bytes) -> Entry:
    """The entry of a record that was stored for this key.

    Raises:
        Corrupt: it is anything else.
    """
    header, start, end = _parts(record)
    if not hmac.compare_digest(hmac.digest(mac_key, record[:end], "sha256"), record[end:]):
        raise Corrupt("the MAC does not match")
    try:
        fields = json.loads(header)
        if fields["key"] != key.hex():
            raise Corrupt("it was stored for another request")
        return Entry(
            key=key,
            path=fields["path"],
            stream=fields["stream"],
            content_type=fields["content_type"],
            body=record[start:end],
            stored_at=fields["stored_at"],
            model=fields["model"],
            has_usage=fields["has_usage"],
        )
    except (ValueError, KeyError, TypeError):
        raise Corrupt("the header lacks what this version needs") from None


def _parts(record: bytes) -> tuple[bytes, int, int]:
    """The header, and where the body starts and ends, as the record claims; whether it is true the MAC will tell."""
    if len(record) < _PREFIX.size + MAC_BYTES:
        raise Corrupt("it is too short")
    magic, header_bytes, body_bytes = _PREFIX.unpack_from(record)
    if magic != MAGIC:
        raise Corrupt("it is no record of this version")
    start = _PREFIX.size + header_bytes
    end = start + body_bytes
    return record[_PREFIX.size : start], start, end
