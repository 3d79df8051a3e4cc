"""Not the simulator: starts it as a child process and talks to its control API. Standard library only.

with Simulator.start(pods="inline", behavior={"load_seconds": 0}) as sim:
    sim.api_url, sim.proxy_url, sim.key
"""

import http.client
import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

_ROOT = Path(__file__).resolve().parents[2]
_START = 20.0  # seconds; a start takes a quarter of one on an idle machine
_END = 10.0


class SimulatorError(RuntimeError):
    """The simulator did not start, or refused an order; the message says why."""


class Simulator:
    """One running simulator. Use `start`; `close` ends it and is idempotent.

    Attributes:
        api_url: base of the fake API, without `/v2`.
        proxy_url: pattern of a pod's public URL, with `{id}` and `{port}`.
        control_url: base of the control API.
        hub_url: base of the fake model hub.
        key: the account's API key.
        pid: of the simulator's process.
    """

    def __init__(self, process: "subprocess.Popen[str]", ready: dict[str, Any], key: str) -> None:
        self._process = process
        self.api_url = str(ready["api_url"])
        self.proxy_url = str(ready["proxy_url"])
        self.control_url = str(ready["control_url"])
        self.hub_url = f"{self.api_url}/hub"
        self.pid = int(ready["pid"])
        self.key = key

    def __repr__(self) -> str:
        return f"Simulator({self.api_url}, pid {self.pid})"

    @classmethod
    def start(
        cls,
        *,
        pods: str = "process",
        behavior: Mapping[str, Any] | None = None,
        key: str | None = None,
        port: int = 0,
    ) -> Self:
        """Start and return when it answers; it ends with this process at the latest.

        Args:
            pods: model servers as a `process` each, or `inline` in the simulator.
            behavior: changes to the defaults, see `llmpod.sim.behavior`.
            key: the API key; a new one when not given.
            port: of the API; any free one by default.

        Raises:
            SimulatorError: it did not start in time, or ended.
        """
        key = key or f"rpa_{secrets.token_hex(20).upper()}"
        argv = ["--pods", pods, "--port", str(port), "--parent-pid", str(os.getpid())]
        argv += ["--behavior", json.dumps(dict(behavior))] if behavior else []
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-m", "llmpod.sim", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for whoever started it, and who still has pods to delete
            text=True,
            # the key by environment: everybody can read the arguments of a process
            env={**_harmless(os.environ), "LLMPOD_SIM_KEY": key, "PYTHONPATH": os.pathsep.join(paths)},
        )
        try:
            return cls(process, _ready(process), key)
        except BaseException:  # interrupted or failed: nobody else would end the child
            _end(process)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the simulator and its pods, by their pids."""
        _end(self._process)

    # --- looking
    def state(self) -> dict[str, Any]:
        """`now` and `pods`, all that ever were."""
        return self._call("GET", "state")

    def alive(self) -> list[dict[str, Any]]:
        """The pods that were not deleted."""
        return [pod for pod in self.state()["pods"] if pod["terminated_at"] is None]

    def bill(self) -> dict[str, Any]:
        """`pods`, USD by id, and `total_usd`."""
        return self._call("GET", "bill")

    def requests(self) -> list[dict[str, Any]]:
        """API calls so far: method, path, status (0: none was sent), at. Control calls are not among them."""
        calls: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return calls

    # --- ordering
    def set(self, **behavior: Any) -> None:
        """Change the behaviour. Raises SimulatorError for an unknown name or wrong type."""
        self._call("POST", "behavior", behavior)

    def fault(self, op: str, fault: str, times: int = 1) -> None:
        """Order a fault for the next calls of an operation, see `llmpod.sim.faults`. Raises SimulatorError."""
        self._call("POST", "faults", {"op": op, "fault": fault, "times": times})

    def advance(self, seconds: float) -> None:
        """Move the simulator's clock forward."""
        self._call("POST", "advance", {"seconds": seconds})

    def kill(self, pod_id: str) -> None:
        """Let the model server of a pod die; its container restarts."""
        self._call("POST", "kill", {"id": pod_id})

    def endpoint(self, **options: Any) -> dict[str, Any]:
        """`id` and `key` of a new serverless endpoint; with `id=`, of that one, changed. See `sim.serverless`."""
        return self._call("POST", "endpoint", options)

    def reset(self) -> None:
        """Back to the start: no pods, no calls, no faults, the first behaviour."""
        self._call("POST", "reset")

    def _call(self, method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        url = urlsplit(self.control_url)
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
        try:
            connection.request(method, f"{url[2]}/{name}", json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            value: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise SimulatorError(value.get("error", f"HTTP {answer.status}"))
        return value


def _harmless(environ: Mapping[str, str]) -> dict[str, str]:
    """What a Python program needs of the environment: a fake has no business with anybody's secrets."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    return {n: value for n, value in environ.items() if n in kept or n.startswith(("PYTHON", "COVERAGE_"))}


def _ready(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The line that says where it listens. Raises SimulatorError."""
    assert process.stdout is not None
    deadline = time.monotonic() + _START
    while (left := deadline - time.monotonic()) > 0:
        readable, _, _ = select.select([process.stdout], [], [], left)
        if not readable:
            break
        line = process.stdout.readline()
        if not line:
            raise SimulatorError(f"the simulator ended with code {process.wait()}")
        value: dict[str, Any] = json.loads(line)
        return value
    raise SimulatorError(f"the simulator did not listen within {_START:g} s")


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()
