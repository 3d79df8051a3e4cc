"""A pod is rented from strangers: whatever its server sends, a pass ends soon and a terminal stays as it is."""

import json
import socket
import threading
import time

import pytest

from tests.manager.passes import until
from tests.support.install import Install
from tests.support.rawserver import answering, dripping, raw_server


def served_from(install: Install, url: str) -> None:
    """The pod's address now leads there."""
    install.write(runpod_proxy_url=url + "/{id}/{port}")


def test_a_header_that_drips_holds_no_pass_and_no_lock(install: Install) -> None:
    until(install, "ready")
    with dripping() as url:
        served_from(install, url)
        begin = time.monotonic()
        said = install.manage("--verbose").expect().out
        assert time.monotonic() - begin < 15
    assert "does not end" in said
    assert install.state()["phase"] == "unhealthy"
    assert "Another pass" not in install.manage().out


@pytest.mark.parametrize("location", ["http://[", "\x1b]0;title\x07"])
def test_a_strange_redirect_is_no_traceback(install: Install, location: str) -> None:
    until(install, "ready")
    with answering("", status="302 Found", headers=(f"Location: {location}",)) as url:
        served_from(install, url)
        done = install.manage("--verbose").expect()
    assert "HTTP 302 instead of 401" in done.out
    assert done.err == ""


def test_a_redirect_with_an_endless_body_is_not_read(install: Install) -> None:
    """By its header alone it is none of ours; requests would read on for ever."""

    def talk(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"x" * 65536)

    until(install, "ready")
    with raw_server(talk) as url:
        served_from(install, url)
        begin = time.monotonic()
        assert "larger than" in install.manage("--verbose").expect().out
        assert time.monotonic() - begin < 4


def test_no_escape_of_the_server_reaches_the_terminal(install: Install) -> None:
    names = json.dumps({"data": [{"id": "\x1b[2J\x1b]0;owned\x07tiny\u202e\ud800\nchat"}]}).encode()

    def talk(connection: socket.socket, _over: threading.Event) -> None:
        asked = connection.recv(65536)
        status = b"200 OK" if b"authorization:" in asked.lower() else b"401 Unauthorized"
        connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(names), names))

    until(install, "ready")
    with raw_server(talk) as url:
        served_from(install, url)
        told = install.manage("--verbose").expect().out + install.manage("status").expect().out
    assert told.count("it serves tiny chat, not org/tiny-chat") >= 2
    assert all(character.isprintable() or character == "\n" for character in told)
