"""The command `download` through the front door: models come into the cache that their servers read."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmpod.cli.download import Meter, size
from llmpod.cli.download_place import place_of
from llmpod.config import parse
from llmpod.errors import BadSpec
from llmpod.sim.hub import TOKEN
from llmpod.sim.launch import Simulator
from tests.support.desk import MODEL, Desk
from tests.support.forks import Forks
from tests.support.process import PYTHON, running
from tests.support.source import ROOT
from tests.support.wait import eventually

COMMAND = ["vllm", "serve", MODEL]


@pytest.fixture
def sim(shared_sim: Simulator) -> Simulator:
    return shared_sim


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str], forks: Forks) -> Desk:
    return Desk(state_dir, {**env, "HOME": str(state_dir)}, start=forks.run)


def cached(desk: Desk, model: str = MODEL) -> set[str]:
    """The files that a server finds, in a home directory of the test's own."""
    home = desk.directory / ".cache/huggingface/hub" / f"models--{model.replace('/', '--')}"
    commit = (home / "refs" / "main").read_text() if (home / "refs" / "main").exists() else "none"
    return {path.name for path in (home / "snapshots" / commit).glob("*") if path.stat().st_size}


def test_a_model_comes_into_the_cache_of_its_server(sim: Simulator, desk: Desk) -> None:
    desk.write(COMMAND, hub_url=sim.hub_url)
    asked = desk.manage("download", "--check").expect().out
    assert "3 files, 9 MB" in asked
    assert cached(desk) == set()
    done = desk.manage("download").expect().out
    assert "is in " in done
    assert cached(desk) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert "of which 9 MB are there" in desk.manage("download", "default").expect().out


def test_an_interrupted_one_goes_on(sim: Simulator, desk: Desk) -> None:
    desk.write(COMMAND, hub_url=sim.hub_url)
    sim.fault("cdn", "stall=1000000", times=2)
    config = str(desk.directory / "pod_config.json")
    argv = [PYTHON, str(ROOT / "manage_pod.py"), "--config", config, "download"]
    with running(argv, env=desk.env) as download:
        blobs = desk.directory / ".cache/huggingface/hub/models--org--tiny-chat/blobs"

        def came() -> int:
            return sum(path.stat().st_size for path in blobs.glob("*.incomplete"))

        eventually(lambda: came() == 2_000_000, within=60)
        assert download.stop(within=30) == 128 + signal.SIGINT
        assert "goes on from there" in download.out
    assert cached(desk) == set()
    assert "of which 2 MB are there" in desk.manage("download").expect().out
    assert cached(desk) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_no_room_is_said_before_anything_comes(sim: Simulator, desk: Desk) -> None:
    desk.write(COMMAND, model="org/colossus", hub_url=sim.hub_url)
    refused = desk.manage("download").expect(78)
    assert "4.0 TB are still to come" in refused.err
    assert "--cache-dir" in refused.err
    assert [call["path"] for call in sim.requests() if "/resolve/" in call["path"]] == []
    assert not (desk.directory / ".cache").exists()


def test_a_gated_model_needs_the_token_and_shows_it_to_nobody(sim: Simulator, desk: Desk) -> None:
    desk.write(COMMAND, model="org/gated-small", hub_url=sim.hub_url)
    refused = desk.manage("download").expect(77)
    assert "licence" in refused.err
    desk.env = {**desk.env, "HF_TOKEN": TOKEN}
    done = desk.manage("--verbose", "download").expect()
    assert TOKEN not in done.out + done.err
    assert cached(desk, "org/gated-small")


def test_an_unknown_model_is_named_with_its_neighbours(sim: Simulator, desk: Desk) -> None:
    desk.write(COMMAND, model="org/tiny-chatt", hub_url=sim.hub_url)
    assert "org/tiny-chat" in desk.manage("download").expect(78).err


def test_of_several_those_that_run_here(sim: Simulator, desk: Desk) -> None:
    models = {
        "here": {
            "model": MODEL,
            "process": {"command": COMMAND, "env": {"HF_HOME": str(desk.directory / "hf")}},
        },
        "there": {"model": "org/seven", "backend": "static", "static": {"url": "http://127.0.0.1:9"}},
    }
    config = {"backend": "process", "hub_url": sim.hub_url, "models": models}
    (desk.directory / "pod_config.json").write_text(json.dumps(config))
    done = desk.manage("download").expect().out
    assert "there: Nothing to download from here: somebody else" in done
    assert list(desk.directory.glob("hf/hub/models--org--tiny-chat/snapshots/*/model.safetensors"))
    assert "somebody else" in desk.manage("download", "there").expect(78).err
    elsewhere = desk.directory / "elsewhere"
    desk.manage("download", "here", "--cache-dir", str(elsewhere), "--include", "*.json").expect()
    assert {path.name for path in elsewhere.glob("*/snapshots/*/*")} == {"config.json", "tokenizer.json"}


# --- where a server looks
HOME = "/home/me/.cache/huggingface/hub"


def place(backend: str, section: Mapping[str, object], **environ: str) -> Path:
    raw = {"model": MODEL, "backend": backend, backend: section}
    config = parse(raw, path=Path("/nowhere/pod_config.json"), environ={})
    return place_of(config, config.common, {"HOME": "/home/me", **environ})


@pytest.mark.parametrize(
    ("expected", "section", "environ"),
    [
        (HOME, {}, {}),
        ("/hf/hub", {}, {"HF_HOME": "/hf"}),
        ("/xdg/huggingface/hub", {}, {"XDG_CACHE_HOME": "/xdg"}),
        (HOME, {}, {"HF_HUB_CACHE": "/a-server-does-not-see-it"}),
        ("/c", {"env": {"HF_HUB_CACHE": "/c", "HF_HOME": "/hf"}}, {"HF_HOME": "/other"}),
        ("/d", {"command": [*COMMAND, "--download-dir", "/d"], "env": {"HF_HOME": "/hf"}}, {}),
        ("/nowhere/d", {"command": [*COMMAND, "--download-dir=d"]}, {}),
        ("/elsewhere/d", {"command": [*COMMAND, "--download-dir=d"], "cwd": "/elsewhere"}, {}),
    ],
)
def test_the_cache_of_a_command(expected: str, section: dict[str, object], environ: dict[str, str]) -> None:
    assert place("process", {"command": COMMAND, **section}, **environ) == Path(expected)


def test_the_cache_of_a_job_is_that_of_its_home() -> None:
    section = {"command": COMMAND, "loopback_user": "me", "loopback_host": "login1"}
    assert place("slurm", section, HF_HOME="/of-this-shell") == Path(HOME)
    assert place("slurm", {**section, "env": {"HF_HOME": "/shared/hf"}}) == Path("/shared/hf/hub")


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (["/host/hf:/root/.cache/huggingface"], "/host/hf/hub"),
        (["/host/other:/data", "/host/root:/root:rw"], "/host/root/.cache/huggingface/hub"),
        (["named:/root/.cache/huggingface"], None),
        (["/host/x:/root/.cache/hugging"], None),
        ([], None),
    ],
)
def test_the_cache_of_a_container_is_what_is_mounted_there(mounts: list[str], expected: str | None) -> None:
    section = {"image": "vllm", "mounts": mounts}
    if expected is not None:
        assert place("docker", section) == Path(expected)
        return
    with pytest.raises(BadSpec, match="ends with it") as refused:
        place("docker", section)
    assert "docker.mounts" in refused.value.hint


def test_a_pod_fetches_its_own() -> None:
    raw = {"model": MODEL}
    config = parse(raw, path=Path("/nowhere/pod_config.json"), environ={})
    with pytest.raises(BadSpec, match="network_volume_id"):
        place_of(config, config.common, {"HOME": "/home/me"})


# --- how it is told
def test_lines_tell_how_fast_it_is_and_how_long_it_takes() -> None:
    meter = Meter(total=10_000_000, done=0, now=100.0)
    assert meter.line(1_000_000, 105.0) == ""
    assert meter.line(2_000_000, 110.0) == "2 MB of 10 MB (20 %), 200 kB/s, 40 s left"
    assert meter.line(2_000_000, 119.0) == ""
    assert meter.line(2_000_000, 150.0) == "2 MB of 10 MB (20 %), 0 B/s, nothing comes"


@pytest.mark.parametrize(
    ("bytes_", "said"),
    [(0, "0 B"), (999, "999 B"), (15_230_000_000, "15.2 GB"), (999_600, "1 MB"), (4 * 10**12, "4.0 TB")],
)
def test_sizes(bytes_: int, said: str) -> None:
    assert size(bytes_) == said
