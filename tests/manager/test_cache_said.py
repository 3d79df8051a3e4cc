"""What `cache …` tells a person is whole, and names what is missing."""

import json

from tests.manager.cache_kit import Kit, eventually_stored, filled, front, kit, server
from tests.proxy.front import Proxy, chat_body
from tests.proxy.stub import CHAT, Stub, chat
from tests.support.process import PYTHON
from tests.support.screen import terminal
from tests.support.source import ROOT

__all__ = ["front", "kit", "server"]


def test_lines_are_whole_for_whoever_reads_them(
    kit: Kit, front: Proxy, server: Stub, env: dict[str, str]
) -> None:
    """A pipe has no columns; a narrow terminal breaks lines itself."""
    model = "an-organization-with-a-long-name/" + "a-model-with-a-long-name-" * 3
    server.script = lambda turn: turn.reply(chat(model=model))
    front.ask(chat_body("first"))
    eventually_stored(kit, 1)
    (row,) = kit.json("ls")
    said = kit("ls")
    parts = (row["key"][:15], model, CHAT)
    assert [part for part in said.split() if part in parts] == list(parts)
    assert "up to 30 s late" in said
    words = [
        PYTHON,
        str(ROOT / "manage_pod.py"),
        "--config",
        str(kit.home / "pod_config.json"),
        "cache",
        "ls",
    ]
    with terminal(words, {**env, "COLUMNS": "40", "TERM": "xterm"}) as narrow:
        narrow.until("Hits and last use")
    assert row["key"][:15] in narrow.shown
    assert "an-organization" in narrow.shown


def test_a_directory_that_is_named_is_there_or_misspelt(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    wrong = str(kit.home / "cahce")
    body = json.dumps(chat_body())
    for words in (
        ["ls"],
        ["stats"],
        ["verify"],
        ["purge", "--all"],
        ["show", "abcd"],
        ["export"],
        ["why", body],
    ):
        assert f"{wrong} does not exist." in kit(*words, "--dir", wrong, code=1)
    assert "there is no cache in it" in kit("ls", "--dir", str(kit.home), code=78)
    assert "None of the 3 answers" in kit("ls", "--model", "unheard-of")


def test_why_names_the_option_that_tells_of_a_proxy_alone(kit: Kit, front: Proxy) -> None:
    filled(front)
    eventually_stored(kit, 3)
    where = ("--dir", str(kit.cache_dir))
    asked = json.dumps(chat_body("second", stream=True))
    assert "--endpoint URL" in kit.json("why", asked, *where, code=1)["reason"]
    assert "HIT" in kit("why", asked, *kit.alone)
