"""Looking into a cache directory from outside, and changing one that nobody uses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llmpod.cache import Contents, import_lines, purge
from llmpod.cache.entry import LIVE
from llmpod.errors import Busy, StateError
from tests.cache.helpers import digest, entry, fill, frames_in, opened, run, segments, short

QUESTION = b'{"messages":[{"role":"user","content":"what?"}],"model":"tiny"}'


def holds(home: Path, word: bytes) -> bool:
    return any(word in path.read_bytes() for path in home.iterdir())


def test_everything_about_an_entry(home: Path) -> None:
    async def test() -> None:
        async with opened(home, clock=lambda: 2_000_000_000.0) as cache:
            cache.put(replace(entry(1), request=QUESTION))
            cache.put(replace(entry(2, 20_000), request=QUESTION * 100))
            await cache.flush()  # a large entry is packed in a thread, and may come behind a small one
            cache.put(entry(3))
            for _ in range(7):
                assert cache.peek(digest(1))
        contents = Contents(home)
        assert contents.keys() == [short(2), short(3), short(1)]
        (found,) = contents.entries(digest(1).hex())
        assert (found.entry, found.entry.request) == (entry(1), QUESTION)
        assert (found.hits, found.last_use) == (7, 2_000_000_000.0)
        (large,) = contents.entries(short(2))
        assert large.entry.request == QUESTION * 100
        assert large.size < 20_000 + 1000, "the question is compressed"
        assert [stored.entry.request for stored in contents.entries(short(3))] == [None]
        assert list(contents.entries("no such")) == []
        assert contents.verify().entries == len(contents) == 3

    run(test)


def test_while_a_proxy_works(home: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            for number in range(5):
                cache.put(entry(number))
            await cache.flush()
            await cache.drop(digest(3))
            contents = Contents(home)
            assert [stored.entry for stored in contents.entries()] == [entry(n) for n in (0, 1, 2, 4)]
            assert contents.stats()["size_bytes"] == cache.size_bytes
            with pytest.raises(Busy, match="proxy"):
                import_lines(home, [], max_bytes=10**7)
            with pytest.raises(Busy, match="did not answer"):
                purge(home, patience=0)  # the loop that could answer is this one
            assert not holds(home, b"known"), "it was taken back"
            assert await cache.get(digest(1)) == entry(1)

    run(test)


def test_damage_is_found(home: Path) -> None:
    run(lambda: fill(home, *range(5)))
    path = segments(home)[0]
    frames = frames_in(path)
    assert {frame.state for frame in frames} == {LIVE}
    data = bytearray(path.read_bytes())
    data[frames[2].offset + 300] ^= 1
    path.write_bytes(data + b"torn")
    report = Contents(home).verify()
    assert (report.entries, report.damaged) == (4, [(short(2), "the MAC does not match")])
    assert report.lost_bytes == 4


def test_export_and_import(home: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with opened(home) as cache:
            cache.put(replace(entry(1), request=QUESTION))
            cache.put(replace(entry(2), body=b'{"text":"r\xc3\xa9sum\xc3\xa9"}'))
            cache.put(entry(3))
        lines = list(Contents(home).export())
        assert "résumé" in lines[2]
        other = tmp_path / "other"
        await fill(other, 3)
        assert import_lines(other, lines, max_bytes=10**7) == (2, 1)
        assert import_lines(other, lines, max_bytes=10**7) == (0, 3)
        assert import_lines(tmp_path / "small", lines, max_bytes=1000) == (1, 2)
        async with opened(other) as cache:
            assert await cache.get(digest(1)) == entry(1)
            found = await cache.get(digest(2))
            assert found
            assert found.body == b'{"text":"r\xc3\xa9sum\xc3\xa9"}'
            await cache.flush()
            assert cache.entries == 3
        (again,) = Contents(other).entries(short(1))
        assert again.entry.request == QUESTION

    run(test)


@pytest.mark.parametrize("lines", [["{}"], ["x"], ['{"format": "llmpod-cache-1"}', '{"key": "00"}'], ["[]"]])
def test_what_is_no_export_is_refused(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(StateError):
        import_lines(tmp_path / "new", lines, max_bytes=10**7)


def test_purge(home: Path) -> None:
    secret = b"CANARY-" + b"x" * 40

    async def test() -> None:
        async with opened(home) as cache:
            cache.put(replace(entry(1), body=secret, request=json.dumps({"a": secret.decode()}).encode()))
            cache.put(entry(2))
            cache.put(entry(3))
        assert holds(home, secret)
        assert purge(home, lambda found: found.key == digest(1)) == 1
        assert not holds(home, b"CANARY")
        async with opened(home) as cache:
            await cache.flush()
            assert (cache.entries, await cache.get(digest(1))) == (2, None)
            assert await cache.get(digest(2)) == entry(2)
        assert purge(home) == 2
        assert not segments(home)
        async with opened(home) as cache:
            await cache.flush()
            assert cache.entries == 0

    run(test)


def test_no_cache_is_said(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be opened"):
        Contents(tmp_path / "none")
    with pytest.raises(StateError, match="no cache"):
        Contents(tmp_path)
    assert list(tmp_path.iterdir()) == []
