"""What a command says of a word or a file that is wrong is in the words of who typed it."""

from pathlib import Path

from llmpod.lifecycle.store import Store
from tests.support.install import Install


def test_a_scope_that_there_is_not(install: Install) -> None:
    said = install.manage("keys", "add", "me", "--scope", "foo").expect(2).err
    assert "invalid choice: 'foo'" in said
    assert "'infer'" in said
    assert "Scope" not in said


def test_a_request_file_that_there_is_not(install: Install, tmp_path: Path) -> None:
    refused = install.manage("cache", "why", str(tmp_path / "none.json"))
    assert refused.code != 0
    assert f"Cannot read {tmp_path / 'none.json'}: No such file or directory." in refused.err
    assert "Errno" not in refused.err


def test_the_usual_start_is_a_round_number(state_dir: Path) -> None:
    store = Store(state_dir / "pod_state.json")
    for seconds in (0.4, 0.5, 0.1, 0.8):
        store.add_start("gpu", "org/a", seconds)
    typical = store.typical_start("org/a")
    assert typical is not None
    assert repr(typical[0]) in ("0.4", "0.5")
