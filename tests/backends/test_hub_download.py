"""Weights come whole or not at all, each byte once, and the token stays with the hub."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from llmpod.backends.hub import Hub
from llmpod.backends.hub_cache import HubCache
from llmpod.backends.hub_download import Download, Patience
from llmpod.backends.hub_files import RepoFile, needed, snapshot
from llmpod.errors import BadCredentials, BadSpec, LlmpodError, ProviderUnavailable
from llmpod.secret import Secret
from llmpod.sim.hub import OUTSIDER, TOKEN
from llmpod.sim.launch import Simulator

MODEL = "org/tiny-chat"
QUICK = Patience(silence_seconds=2.0, first_pause_seconds=0.01)
LARGE = 2  # of its three files come from the CDN


@pytest.fixture
def sim(shared_sim: Simulator) -> Simulator:
    return shared_sim


Opened = Callable[..., Download]


@pytest.fixture
def opened(sim: Simulator, tmp_path: Path) -> Iterator[Opened]:
    """A download into the test's own cache, with a token or without."""
    hubs: list[Hub] = []

    def open_(repo_id: str = MODEL, token: str | None = None) -> Download:
        hubs.append(Hub(sim.hub_url, Secret(token, "a test") if token else None))
        whole = snapshot(repo_id, hubs[-1].page(repo_id))
        cache = HubCache(tmp_path, repo_id)
        return Download(hubs[-1].http, cache, whole, files=needed(whole), patience=QUICK)

    yield open_
    for hub in hubs:
        hub.close()


def fetched(download: Download) -> None:
    download.run(lambda: None, every=0.01)


def blobs(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("models--*/blobs/*")}


def is_right(name: str, body: bytes) -> bool:
    """By its own name: SHA-256, or as git names a blob."""
    git = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False)
    return name in (hashlib.sha256(body).hexdigest(), git.hexdigest())


def calls(sim: Simulator) -> list[tuple[str, int]]:
    return [(c["path"], c["status"]) for c in sim.requests() if c["path"].startswith("/hub-cdn/")]


def assert_whole(cache: Path) -> None:
    found = blobs(cache)
    assert len(found) == 3
    assert all(is_right(name, body) for name, body in found.items())


def test_what_comes_is_checked_named_and_not_fetched_again(
    sim: Simulator, opened: Opened, tmp_path: Path
) -> None:
    download = opened()
    assert (download.done, download.needed) == (0, download.total)
    fetched(download)
    assert_whole(tmp_path)
    assert download.done == download.total > 9_000_000
    names = {path.name: path.resolve() for path in tmp_path.glob("models--org--tiny-chat/snapshots/*/*")}
    assert names.keys() == {"config.json", "tokenizer.json", "model.safetensors"}
    assert all(path.parent.name == "blobs" for path in names.values())
    before = len(calls(sim))
    again = opened()
    assert again.needed == 0
    fetched(again)
    assert len(calls(sim)) == before == LARGE


@pytest.mark.parametrize(
    "faults",
    [
        *(["cut=100000"], ["cut=0", "dropped"], ["stall=70000"], ["503"], ["429"], ["403"], ["wrong"]),
        *(["cut=1000000", "whole"], ["cut=100000", "wrong"]),
    ],
    ids="+".join,
)
def test_trouble_on_the_way_is_overcome(
    sim: Simulator, opened: Opened, tmp_path: Path, faults: list[str]
) -> None:
    for fault in faults:
        sim.fault("cdn", fault)
    fetched(opened())
    assert_whole(tmp_path)
    assert len(calls(sim)) > LARGE


def test_it_goes_on_where_it_was_cut(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    sim.fault("cdn", "cut=1500000", times=LARGE)
    sim.fault("cdn", "404", times=100)
    with pytest.raises(ProviderUnavailable, match="404"):
        fetched(opened())
    left = {path.name: path.stat().st_size for path in tmp_path.glob("models--*/blobs/*.incomplete")}
    assert left
    sim.reset()
    again = opened()
    assert again.done >= sum(left.values()) > 0
    fetched(again)
    assert_whole(tmp_path)
    assert [status for _, status in calls(sim)] == [206] * len(left) + [200] * (LARGE - len(left))


def test_who_knows_no_ranges_sends_all_of_it_once(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    sim.fault("cdn", "cut=1000000", times=LARGE)
    sim.fault("cdn", "404", times=100)
    with pytest.raises(ProviderUnavailable):
        fetched(opened())
    sim.reset()
    sim.fault("cdn", "whole", times=LARGE)
    fetched(opened())
    assert_whole(tmp_path)
    assert [status for _, status in calls(sim)] == [200] * LARGE


def test_wrong_bytes_are_never_kept(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    sim.fault("cdn", "wrong", times=100)
    with pytest.raises(ProviderUnavailable, match="not the file's"):
        fetched(opened())
    assert all(is_right(name, body) for name, body in blobs(tmp_path).items() if "." not in name)
    assert list(tmp_path.glob("models--*/snapshots/*/model.safetensors")) == []


def test_what_an_earlier_attempt_left_is_checked_too(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    place = tmp_path / "models--org--tiny-chat" / "blobs"
    place.mkdir(parents=True)
    with closing(Hub(sim.hub_url, None)) as hub:
        files = snapshot(MODEL, hub.page(MODEL)).files
    for file in files:
        (place / f"{file.digest}.incomplete").write_bytes(b"\xff" * min(file.size + 5, 1000))
    fetched(opened())
    assert_whole(tmp_path)


def test_the_token_is_for_the_hub_alone(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    """The CDN of the fake answers 400 to whoever brings a token along."""
    fetched(opened("org/gated-small", TOKEN))
    assert {status for _, status in calls(sim)} == {200}
    assert_whole(tmp_path)


@pytest.mark.parametrize("token", [None, OUTSIDER])
def test_a_gated_model_says_how_to_get_in(opened: Opened, tmp_path: Path, token: str | None) -> None:
    with pytest.raises(BadCredentials, match="gated") as refused:
        fetched(opened("org/gated-small", token))
    assert "licence" in refused.value.hint
    assert [name for name in blobs(tmp_path) if "." not in name] == []


def test_two_at_once_fetch_each_byte_once(sim: Simulator, opened: Opened, tmp_path: Path) -> None:
    downloads = [opened(), opened()]
    threads = [Thread(target=fetched, args=(download,)) for download in downloads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert_whole(tmp_path)
    assert len(calls(sim)) == LARGE
    assert all(download.done == download.total for download in downloads)


def test_a_cache_that_cannot_be_written_is_told(opened: Opened, tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("in the way")
    with pytest.raises(LlmpodError, match="Cannot write"):
        fetched(opened())


# --- what is said of files
COMMIT, SHA256 = "a" * 40, "b" * 64


def entry(name: object, *, size: object = 7, lfs: object = None, blob: object = COMMIT) -> dict[str, object]:
    return {"rfilename": name, "size": size, "blobId": blob, "lfs": lfs}


@pytest.mark.parametrize(
    "bad",
    [entry(name) for name in ("../x", "/etc/x", "a/../../x", "a//b", ".", "", "a\\b", "a\nb", "x" * 300, None, 7)]
    + [entry("a", size=size) for size in (None, -1, True, "7", 2**60)]
    + [entry("a", blob=blob) for blob in (None, "", "../../x", "A" * 40, SHA256)]
    + [entry("a", lfs={"sha256": digest}) for digest in (None, COMMIT, "../" * 20)]
    + [None, [], "x"],
    ids=lambda bad: repr(bad)[:60],
)  # fmt: skip
def test_a_strangers_file_that_nobody_should_write(bad: object) -> None:
    with pytest.raises(ProviderUnavailable):
        snapshot("org/m", {"sha": COMMIT, "siblings": [entry("good"), bad]})


@pytest.mark.parametrize("sha", [None, "main", "../x", "a" * 39])
def test_a_commit_that_is_none(sha: object) -> None:
    with pytest.raises(ProviderUnavailable):
        snapshot("org/m", {"sha": sha, "siblings": []})


def chosen(*names: str, patterns: tuple[str, ...] = ()) -> list[str]:
    whole = snapshot("org/m", {"sha": COMMIT, "siblings": [entry(name) for name in names]})
    return [file.name for file in needed(whole, patterns)]


def test_one_form_of_the_weights_is_enough() -> None:
    weights = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    others = ["pytorch_model.bin", "tf_model.h5", "original/model.safetensors", "onnx/model.onnx", "m.gguf"]
    assert chosen("config.json", *others, *weights) == ["config.json", *weights]
    assert chosen("pytorch_model.bin", "m.gguf") == ["pytorch_model.bin"]
    assert chosen("1_Pooling/config.json", "2_Dense/model.safetensors", "model.safetensors") == [
        "1_Pooling/config.json",
        "2_Dense/model.safetensors",
        "model.safetensors",
    ]
    assert chosen("a", "b.Q4.gguf", patterns=("*.Q4.*",)) == ["b.Q4.gguf"]
    split = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert chosen(*split) == split


@pytest.mark.parametrize("names", [["m.Q4.gguf", "m.Q8.gguf"], ["config.json"], ["original/m.safetensors"]])
def test_what_is_not_clear_is_asked(names: list[str]) -> None:
    with pytest.raises(BadSpec, match=r"GGUF|no weights") as asked:
        chosen(*names)
    assert "--include" in asked.value.hint


def test_a_revision_leads_nowhere_else(sim: Simulator, tmp_path: Path) -> None:
    with closing(Hub(sim.hub_url, None)) as hub:
        whole = snapshot(MODEL, hub.page(MODEL))
    cache = HubCache(tmp_path / "cache", MODEL)
    cache.refer(whole, "../../../out")
    cache.refer(whole, whole.commit)
    assert list(tmp_path.rglob("*")) == []
    cache.refer(whole, "feature/x")
    path = tmp_path / "cache/models--org--tiny-chat/refs/feature/x"
    assert path.read_text() == whole.commit


def test_free_space_is_that_of_the_disk_it_will_be_on(tmp_path: Path) -> None:
    assert HubCache(tmp_path / "not" / "there", MODEL).free_bytes() > 0
    assert HubCache(tmp_path, MODEL).incomplete_bytes(RepoFile("a", 5, COMMIT)) == 0
