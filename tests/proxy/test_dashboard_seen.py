"""The page as a real Chromium shows it: several models, each with its names, its state and why."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llmpod.config.routes import Route, routes_text
from llmpod.lifecycle.state import State
from llmpod.lifecycle.store import Store
from llmpod.model import Phase, Record
from tests.proxy.front import proxy, settings
from tests.proxy.test_edge_browser import CHROMIUM, FLAGS
from tests.support.process import run

pytestmark = [
    pytest.mark.component,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium"),
    pytest.mark.timeout(300),
]
READY = Record(
    phase=Phase.READY, name="llmpod-aa-1", model="org/first", served_name="served", usd_per_hour=0.0
)
WHY = "the pod is exited: its last lines: <b>CUDA out of memory</b>"


def test_from_the_bare_address_to_every_models_state(
    state_dir: Path, tmp_path: Path, env: dict[str, str]
) -> None:
    assert CHROMIUM is not None
    state_file = state_dir / "pod_state.json"
    records = {
        "first": replace(READY, created_at=1e9),
        "second": Record(phase=Phase.LOADING, model="org/second"),
        "third": Record(phase=Phase.FAILED, model="org/third", error=WHY),
    }
    Store(state_file).save(State(records=records))
    routes = tuple(Route(name, f"org/{name}", (f"org/{name}",)) for name in records)
    more = {"LLMPOD_STATE": str(state_file), "LLMPOD_ROUTES": routes_text(routes)}
    with proxy(env | settings(tmp_path / "c", **more)) as front:
        words = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
        seen = (
            run([*words, "--dump-dom", f"http://localhost:{front.port}/"], env=env, within=120).expect().out
        )
    assert '<span id="status" class="pill good">proxy healthy</span>' in seen
    body = seen.partition('<tbody id="models">')[2].partition("</tbody>")[0]
    rows = re.findall("<tr>(.*?)</tr>", body)
    assert len(rows) == 3
    assert '<td class="w good">ready</td>' in rows[0]
    assert rows[0].count('<td class="n">$0.00</td>') == 2, "free is a price, too"
    assert '<td class="w warn">loading</td>' in rows[1]
    shown = WHY.replace("<", "&lt;").replace(">", "&gt;")
    assert f'<td class="w bad">failed<div class="sub">{shown}</div></td>' in rows[2]
