"""Not the framing of bodies (corpus.py): wrong heads, what must be accepted, what never ends, and faults by chance."""

import random
from collections.abc import Iterator

from tests.proxy.corpus import (
    BODY,
    CHUNKS,
    CODING,
    HOST,
    LENGTH,
    REFUSED_BODIES,
    TARGET,
    TYPE,
    chunked,
    extra,
    host,
    line,
    message,
    target,
)

REFUSED: dict[str, bytes] = REFUSED_BODIES | {
    # line ends (RFC 9112 2.2)
    "LF behind the line": line(b"POST " + TARGET + b" HTTP/1.1\n"),
    "CR behind the line": line(b"POST " + TARGET + b" HTTP/1.1\r"),
    "CR CR LF behind the line": line(b"POST " + TARGET + b" HTTP/1.1\r\r\n"),
    "LF behind a field": extra(b"A: b\n"),
    "CR in a field": extra(b"A: b\rC: d\r\n"),
    "CR CR LF behind a field": extra(b"A: b\r\r\n"),
    "LF behind the header": message(HOST + TYPE + LENGTH, b"").removesuffix(b"\r\n") + b"\n" + BODY,
    "only LF": message().replace(b"\r\n", b"\n"),
    "space before the line": b" " + message(),
    "tab before the line": b"\t" + message(),
    "NUL before the line": b"\0" + message(),
    "byte order mark": b"\xef\xbb\xbf" + message(),
    "TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50 + b"\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 20,
    "SOCKS": b"\x05\x01\x00\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "PROXY protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + message(),
    # the request line (RFC 9112 3)
    "two spaces behind the method": line(b"POST  " + TARGET + b" HTTP/1.1\r\n"),
    "two spaces behind the target": line(b"POST " + TARGET + b"  HTTP/1.1\r\n"),
    "space behind the version": line(b"POST " + TARGET + b" HTTP/1.1 \r\n"),
    "tabs between": line(b"POST\t" + TARGET + b"\tHTTP/1.1\r\n"),
    "tab behind the target": line(b"POST " + TARGET + b"\tHTTP/1.1\r\n"),
    "a word too many": line(b"POST " + TARGET + b" x HTTP/1.1\r\n"),
    "no target": line(b"POST HTTP/1.1\r\n"),
    "no version": line(b"POST " + TARGET + b"\r\n"),
    "HTTP/0.9": b"GET /livez\r\n\r\n",
    "version 0.9": line(b"POST " + TARGET + b" HTTP/0.9\r\n"),
    "version 1.2": line(b"POST " + TARGET + b" HTTP/1.2\r\n"),
    "version 2.0": line(b"POST " + TARGET + b" HTTP/2.0\r\n"),
    "version 1.10": line(b"POST " + TARGET + b" HTTP/1.10\r\n"),
    "version 01.1": line(b"POST " + TARGET + b" HTTP/01.1\r\n"),
    "version 1": line(b"POST " + TARGET + b" HTTP/1\r\n"),
    "version 1,1": line(b"POST " + TARGET + b" HTTP/1,1\r\n"),
    "version lower case": line(b"POST " + TARGET + b" http/1.1\r\n"),
    "version HTTPS": line(b"POST " + TARGET + b" HTTPS/1.1\r\n"),
    "version RTSP": line(b"POST " + TARGET + b" RTSP/1.0\r\n"),
    "version ICE": line(b"SOURCE " + TARGET + b" ICE/1.0\r\n"),
    # methods (RFC 9110 9)
    "method lower case": target(TARGET, b"post"),
    "method unknown": target(TARGET, b"FOO"),
    "method empty": line(b" " + TARGET + b" HTTP/1.1\r\n"),
    "method with NUL": target(TARGET, b"PO\0ST"),
    "method with colon": target(TARGET, b"POST:"),
    "method CONNECT": target(b"localhost:80", b"CONNECT"),
    "method TRACE": target(TARGET, b"TRACE"),
    "method PROPFIND": target(TARGET, b"PROPFIND"),
    "method SOURCE": target(TARGET, b"SOURCE"),
    "method DESCRIBE": target(TARGET, b"DESCRIBE"),
    "method M-SEARCH": target(TARGET, b"M-SEARCH"),
    "method QUERY": target(TARGET, b"QUERY"),
    # targets (RFC 3986, RFC 9112 3.2)
    "target without slash": target(b"v1/chat/completions"),
    "target star": target(b"*"),
    "target fragment": target(TARGET + b"#a"),
    "target NUL": target(TARGET + b"\0"),
    "target DEL": target(TARGET + b"\x7f"),
    "target high byte": target(TARGET + b"\xff"),
    "target UTF-8": target(TARGET + "é".encode()),
    "target backslash": target(b"\\v1\\chat\\completions"),
    "target quote": target(TARGET + b'?a="b"'),
    "target angle brackets": target(TARGET + b"?<script>"),
    "target caret": target(TARGET + b"^"),
    "target backtick": target(TARGET + b"`"),
    "target braces": target(TARGET + b"{a}"),
    "target bad percent": target(TARGET + b"%zz"),
    "target half percent": target(TARGET + b"%2"),
    "target dot segments": target(b"/v1/../v1/chat/completions"),
    "target encoded dots": target(b"/v1/%2e%2e/v1/chat/completions"),
    "target doubly encoded dots": target(b"/v1/%252e%252e/v1/chat/completions"),
    "target encoded NUL": target(TARGET + b"%00"),
    "target encoded backslash": target(b"/v1/chat%5ccompletions"),
    "target of another host": target(b"http://evil.example" + TARGET),
    "target with user": target(b"http://user@localhost" + TARGET),
    "target of another scheme": target(b"ftp://localhost" + TARGET),
    "target without scheme": target(b"//localhost" + TARGET),
    "target too long": target(TARGET + b"?" + b"a" * 9000),
    "target far too long": target(TARGET + b"?" + b"a" * 40_000),
    # fields (RFC 9112 5)
    "field without colon": extra(b"abc\r\n"),
    "field without name": extra(b": b\r\n"),
    "field space before colon": extra(b"A : b\r\n"),
    "field tab before colon": extra(b"A\t: b\r\n"),
    "field folded by space": extra(b"A: b\r\n c\r\n"),
    "field folded by tab": extra(b"A: b\r\n\tc\r\n"),
    "field space before the first": message(b" " + HOST + TYPE + LENGTH),
    "field name with space": extra(b"A b: c\r\n"),
    "field name with NUL": extra(b"A\0: b\r\n"),
    "field name with high byte": extra(b"A\xff: b\r\n"),
    "field name in brackets": extra(b"(A): b\r\n"),
    "field name with comma": extra(b"A,B: c\r\n"),
    "field name with slash": extra(b"A/B: c\r\n"),
    "field name with equals": extra(b"A=B: c\r\n"),
    "field name with at": extra(b"A@B: c\r\n"),
    "field name quoted": extra(b'"A": b\r\n'),
    "field value NUL": extra(b"A: b\0c\r\n"),
    "field value bell": extra(b"A: b\x07c\r\n"),
    "field value DEL": extra(b"A: b\x7fc\r\n"),
    "field value vertical tab": extra(b"A: b\x0bc\r\n"),
    "fields too many": extra(b"".join(b"A%d: b\r\n" % n for n in range(101))),
    "fields too long": extra(b"A: " + b"b" * 40_000 + b"\r\n"),
    "field name too long": extra(b"A" * 40_000 + b": b\r\n"),
    "expects magic": extra(b"Expect: 200-magic\r\n"),
    "two content types": extra(b"Content-Type: text/plain\r\n"),
    "compressed body": extra(b"Content-Encoding: gzip\r\n"),
    # hosts (RFC 9112 3.2; CVE-2026-48710)
    "no host": message(TYPE + LENGTH),
    "two hosts": message(HOST + b"Host: evil.example\r\n" + TYPE + LENGTH),
    "the same host twice": message(HOST + HOST + TYPE + LENGTH),
    "host empty": host(b""),
    "host list": host(b"localhost, evil.example"),
    "host with path": host(b"localhost/health?x="),
    "host with query": host(b"localhost?x="),
    "host with fragment": host(b"localhost#x"),
    "host with user": host(b"user@localhost"),
    "host with space": host(b"local host"),
    "host with backslash": host(b"localhost\\x"),
    "host with percent": host(b"%6cocalhost"),
    "host with high byte": host(b"localhost\xff"),
    "host with a port that is none": host(b"localhost:http"),
    "host with two ports": host(b"localhost:1:2"),
    "host with an endless port": host(b"localhost:100000"),
    "host with scheme": host(b"http://localhost"),
    "host bracket open": host(b"[::1"),
    "host dot": host(b"localhost."),
    "host of somebody else": host(b"evil.example"),
    "host that begins like ours": host(b"localhost.evil.example"),
    "host that ends like ours": host(b"evil-localhost"),
    "host that spells our address": host(b"127.0.0.1.nip.io"),
    "host zero": host(b"0.0.0.0"),
    "host short address": host(b"127.1"),
    "host number": host(b"2130706433"),
    "host underscore": host(b"_localhost"),
}

ACCEPTED: dict[str, bytes] = {
    "plain": message(),
    "chunks": chunked(CHUNKS),
    "chunks in upper case": chunked(CHUNKS, b"TRANSFER-ENCODING: Chunked\r\n"),
    "chunk extension": chunked(CHUNKS.replace(b"\r\n", b';a=b;c="d"\r\n', 1)),
    "chunk size with zeros": chunked(b"000" + CHUNKS),
    "trailer": chunked(CHUNKS.removesuffix(b"\r\n") + b"A: b\r\n\r\n"),
    "empty line before": b"\r\n" + message(),
    "no space behind the colon": message(b"Host:localhost\r\nContent-Type:application/json\r\n" + LENGTH),
    "tab behind the colon": message(b"Host:\tlocalhost\r\n" + TYPE + LENGTH),
    "space behind the value": message().replace(b"localhost\r\n", b"localhost \t\r\n"),
    "field without value": extra(b"A:\r\n"),
    "field with high bytes": extra("A: é\r\n".encode()),
    "field with underscore": extra(b"x_session_id: 1\r\n"),
    "query": target(TARGET + b"?api-version=2024-02-01&x=%20%7B"),
    "absolute target": target(b"http://localhost" + TARGET),
    "host with port": host(b"localhost:8000"),
    "host in upper case": host(b"LocalHost:9"),
    "host IPv4": host(b"127.0.0.1:8000"),
    "host IPv6": host(b"[::1]:8000"),
    "HTTP/1.0": line(b"POST " + TARGET + b" HTTP/1.0\r\n"),
    "HTTP/1.0 without host": message(TYPE + LENGTH, line=b"POST " + TARGET + b" HTTP/1.0\r\n"),
    "connection names authorization": extra(b"Connection: keep-alive, authorization\r\n"),
    "a hundred fields": message(
        HOST + TYPE + LENGTH + b"".join(b"A%d: b\r\n" % n for n in range(97)),
    ),
}


# good so far, and then something that never ends
ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "header field": (message(b"A: ", b"").removesuffix(b"\r\n"), b"b" * 1000),
    "header fields": (message(b"", b"").removesuffix(b"\r\n"), b"A: b\r\n" * 100),
    "target": (b"GET /v1/", b"a" * 1000),
    "empty lines": (b"", b"\r\n" * 1000),
    "chunk size": (chunked(b""), b"0" * 1000),
    "chunk extension": (chunked(b"1;a="), b"b" * 1000),
    "chunk extensions": (chunked(b"1"), b";a=b" * 250),
    "trailer": (chunked(CHUNKS).removesuffix(b"\r\n") + b"A: ", b"b" * 1000),
    "trailers": (chunked(CHUNKS).removesuffix(b"\r\n"), b"A: b\r\n" * 100),
}


def mutants(count: int, *, seed: int) -> Iterator[bytes]:
    """Random small faults in all of the above; the same for the same seed."""
    dice = random.Random(seed)
    stock = [*REFUSED.values(), *ACCEPTED.values()]
    stock = [raw for raw in stock if len(raw) < 2000]
    spice = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b"\xff",
        b"0",
        b",",
        CODING,
        LENGTH,
        HOST,
        b"\r\n\r\n",
    ]
    for _ in range(count):
        raw = bytearray(dice.choice(stock))
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(raw) + 1)
            match dice.randrange(5):
                case 0:
                    raw[at:at] = dice.choice(spice)
                case 1:
                    del raw[at : at + dice.randint(1, 8)]
                case 2:
                    raw[at : at + 1] = bytes([dice.randrange(256)])
                case 3:
                    other = dice.choice(stock)
                    raw[at:] = other[dice.randrange(len(other)) :]
                case _:
                    raw[at:at] = raw[at : at + dice.randint(1, 40)]
        yield bytes(raw)
