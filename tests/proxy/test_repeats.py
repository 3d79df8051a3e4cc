"""A header that comes again to the byte is judged once: with the same outcome, and not for one that differs."""

from tests.proxy.front import Client, Proxy, raw_chat
from tests.proxy.stub import Stub


def _caches(client: Client, *requests: bytes) -> list[str]:
    """What the cache did, one request after the other."""
    heard = []
    for request in requests:
        client.sock.sendall(request)
        heard.append(client.reply().cache)
    return heard


def test_a_refusal_stays_one(front: Proxy, server: Stub) -> None:
    """And a header that was only seen at a hit is still to be judged when its request goes on to the server."""
    wrong = raw_chat("one").replace(b"application/json", b"text/html")
    with front.client() as client:
        for request in (wrong, wrong.replace(b"one", b"two"), wrong.replace(b"one", b"six")):
            client.sock.sendall(request)
            assert client.reply().status == 415
        assert _caches(client, raw_chat("one"), raw_chat("one"), raw_chat("two")) == ["MISS", "HIT", "MISS"]
    packed = raw_chat("one", lines="content-encoding: gzip\r\n")
    with front.client() as client:
        for request in (packed, packed.replace(b"one", b"two")):
            client.sock.sendall(request)
            assert client.reply().status == 415
    assert len(server.turns) == 2


def test_a_wish_holds_for_each_request_that_bears_it(front: Proxy, server: Stub) -> None:
    fresh = raw_chat("one", lines="cache-control: no-cache\r\n")
    with front.client() as client:
        assert _caches(client, fresh, fresh, raw_chat("one"), fresh) == ["MISS", "MISS", "HIT", "MISS"]


def test_credentials_of_one_length_are_not_taken_for_one_another(front: Proxy, server: Stub) -> None:
    one, other = (raw_chat("same", lines=f"authorization: Bearer sk-{name}\r\n") for name in ("one", "two"))
    with front.client() as client:
        heard = _caches(client, one, one, other, other, one)
    assert heard == ["MISS", "HIT", "MISS", "HIT", "HIT"]
