"""Not a fuzzer: what no HTTP server should take for a request, one by one, and what every one must take.

Each case is a name and the bytes. In those that must be refused, everything but the one fault is right: who
overlooks it answers 200. Classes: framing, chunks, lines, fields, targets, hosts, versions, methods.
"""

import json

from tests.proxy.front import chat_body
from tests.proxy.stub import CHAT

BODY = json.dumps(chat_body("corpus")).encode()
SIZE = b"%d" % len(BODY)
TARGET = CHAT.encode()
HOST = b"Host: localhost\r\n"
TYPE = b"Content-Type: application/json\r\n"
LENGTH = b"Content-Length: " + SIZE + b"\r\n"
CODING = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def message(
    fields: bytes = HOST + TYPE + LENGTH,
    body: bytes = BODY,
    *,
    line: bytes = b"POST " + TARGET + b" HTTP/1.1\r\n",
) -> bytes:
    return line + fields + b"\r\n" + body


def extra(field: bytes) -> bytes:
    """A good request with one more line in its header."""
    return message(HOST + TYPE + field + LENGTH)


def chunked(body: bytes, coding: bytes = CODING) -> bytes:
    return message(HOST + TYPE + coding, body)


def line(first: bytes) -> bytes:
    return message(line=first)


def target(path: bytes, method: bytes = b"POST") -> bytes:
    return line(method + b" " + path + b" HTTP/1.1\r\n")


def host(value: bytes) -> bytes:
    return message(b"Host: " + value + b"\r\n" + TYPE + LENGTH)


def length(value: bytes) -> bytes:
    return message(HOST + TYPE + b"Content-Length:" + value + b"\r\n")


X = b"%x" % len(BODY)
REFUSED_BODIES: dict[str, bytes] = {
    # framing: two lengths, no length, both (RFC 9112 6.1, 6.3)
    "length and coding": chunked(CHUNKS, LENGTH + CODING),
    "coding and length": chunked(CHUNKS, CODING + LENGTH),
    "coding and length 0": chunked(CHUNKS, CODING + b"Content-Length: 0\r\n"),
    "two lengths": message(HOST + TYPE + LENGTH + b"Content-Length: 1\r\n"),
    "the same length twice": message(HOST + TYPE + LENGTH + LENGTH),
    "length list": length(b" " + SIZE + b", " + SIZE),
    "length plus": length(b" +" + SIZE),
    "length minus": length(b" -" + SIZE),
    "length hex": length(b" 0x" + X),
    "length underscore": length(b" 1_0"),
    "length with space": length(b" 1 0"),
    "length fraction": length(b" " + SIZE + b".0"),
    "length exponent": length(b" 1e2"),
    "length empty": length(b""),
    "length blank": length(b"   "),
    "length word": length(b" many"),
    "length overflow": length(b" 18446744073709551617"),
    "length endless": length(b" " + b"9" * 400),
    "length with NUL": length(b" " + SIZE + b"\0"),
    "length unicode digit": length(b" \xd9\xa1"),
    "length quoted": length(b' "' + SIZE + b'"'),
    "length semicolon": length(b" " + SIZE + b";"),
    "coding identity": chunked(BODY, b"Transfer-Encoding: identity\r\n" + LENGTH),
    "coding gzip": chunked(CHUNKS, b"Transfer-Encoding: gzip\r\n"),
    "coding gzip, chunked": chunked(CHUNKS, b"Transfer-Encoding: gzip, chunked\r\n"),
    "coding chunked, gzip": chunked(CHUNKS, b"Transfer-Encoding: chunked, gzip\r\n"),
    "coding chunked twice": chunked(CHUNKS, b"Transfer-Encoding: chunked, chunked\r\n"),
    "coding in two lines": chunked(CHUNKS, CODING + CODING),
    "coding chunked, identity": chunked(CHUNKS, b"Transfer-Encoding: chunked, identity\r\n"),
    "coding xchunked": chunked(CHUNKS, b"Transfer-Encoding: xchunked\r\n"),
    "coding chunkedx": chunked(CHUNKS, b"Transfer-Encoding: chunkedx\r\n"),
    "coding with parameter": chunked(CHUNKS, b"Transfer-Encoding: chunked;q=1\r\n"),
    "coding quoted": chunked(CHUNKS, b'Transfer-Encoding: "chunked"\r\n'),
    "coding comma": chunked(CHUNKS, b"Transfer-Encoding: ,chunked\r\n"),
    "coding vertical tab": chunked(CHUNKS, b"Transfer-Encoding: \x0bchunked\r\n"),
    "coding form feed": chunked(CHUNKS, b"Transfer-Encoding: chunked\x0c\r\n"),
    "coding NUL": chunked(CHUNKS, b"Transfer-Encoding: chunked\0\r\n"),
    "coding folded": chunked(CHUNKS, b"Transfer-Encoding:\r\n chunked\r\n"),
    "coding space before colon": chunked(CHUNKS, b"Transfer-Encoding : chunked\r\n"),
    "coding empty": chunked(CHUNKS, b"Transfer-Encoding:\r\n"),
    "coding in HTTP/1.0": message(HOST + TYPE + CODING, CHUNKS, line=b"POST " + TARGET + b" HTTP/1.0\r\n"),
    "coding and length in HTTP/1.0": message(
        HOST + TYPE + LENGTH + CODING, CHUNKS, line=b"POST " + TARGET + b" HTTP/1.0\r\n"
    ),
    # chunks (RFC 9112 7.1)
    "chunk size 0x": chunked(b"0x" + CHUNKS),
    "chunk size minus": chunked(b"-" + CHUNKS),
    "chunk size plus": chunked(b"+" + CHUNKS),
    "chunk size space before": chunked(b" " + CHUNKS),
    "chunk size space behind": chunked(CHUNKS.replace(b"\r\n", b" \r\n", 1)),
    "chunk size tab behind": chunked(CHUNKS.replace(b"\r\n", b"\t\r\n", 1)),
    "chunk size underscore": chunked(b"0_" + CHUNKS),
    "chunk size not hex": chunked(b"g\r\n" + CHUNKS),
    "chunk size empty": chunked(b"\r\n" + CHUNKS),
    "chunk size overflow": chunked(b"10000000000000000" + CHUNKS),
    "chunk size huge": chunked(b"ffffffffffffffff\r\n" + CHUNKS),
    "chunk size NUL": chunked(b"\0" + CHUNKS),
    "chunk size LF": chunked(X + b"\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk size CR": chunked(X + b"\r" + BODY + b"\r\n0\r\n\r\n"),
    "chunk size CR CR LF": chunked(X + b"\r\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk data without end": chunked(X + b"\r\n" + BODY + b"0\r\n\r\n"),
    "chunk data LF": chunked(X + b"\r\n" + BODY + b"\n0\r\n\r\n"),
    "chunk data CR": chunked(X + b"\r\n" + BODY + b"\r0\r\n\r\n"),
    "chunk longer than said": chunked(X + b"\r\n" + BODY + b"x\r\n0\r\n\r\n"),
    "chunk shorter than said": chunked(X + b"\r\n" + BODY[:-1] + b"\r\n0\r\n\r\n"),
    "chunk extension LF": chunked(X + b";a\nb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk extension CR": chunked(X + b";a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk extension NUL": chunked(X + b";a=\0\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "last chunk LF": chunked(X + b"\r\n" + BODY + b"\r\n0\n\n"),
    "last chunk not closed": chunked(X + b"\r\n" + BODY + b"\r\n0\r\n\rx"),
    "trailer length": chunked(X + b"\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n"),
    "trailer coding": chunked(X + b"\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailer folded": chunked(X + b"\r\n" + BODY + b"\r\n0\r\nA: b\r\n c\r\n\r\n"),
    "trailer NUL": chunked(X + b"\r\n" + BODY + b"\r\n0\r\nA: b\0\r\n\r\n"),
}
