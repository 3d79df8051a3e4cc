"""Not the truth about pods (the provider's list is): what this installation must remember, and its three files.

- ``pod_state.json``: written by the manager, read by the proxy.
- ``orders.json``: what people ordered; written by the CLI, outlives passes.
- ``usage.json``: what the proxy saw; written by the proxy.

All but the first live in ``.llmpod/<name of the state file>/`` beside it. A pod's key is derived from the
installation's secret and the pod's unique name, so no file needs to hold it and it is never lost in a crash.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from llmpod.config.credentials import read_private
from llmpod.errors import BadCredentials, NewerState, StateError
from llmpod.lifecycle import files
from llmpod.lifecycle.state import SCHEMA, State, decode, encode
from llmpod.lifecycle.typed import typed
from llmpod.model import Record, Usage, Want
from llmpod.secret import Secret
from llmpod.veil import Veil


class Store:
    """The files of one installation.

    Args:
        state_file: where ``pod_state.json`` is; its directory must be writable.

    Raises:
        StateError: the directory for the other files cannot be used.
    """

    def __init__(self, state_file: Path, *, veil: Veil | None = None) -> None:
        self.state_file = state_file
        self.veil = veil or Veil()
        self.directory = files.private_dir(state_file.parent / ".llmpod" / state_file.stem)
        self.log_file = self.directory / "proxy.log"
        self.catalog_file = self.directory / "catalog.json"
        self.starts_file = self.directory / "starts.jsonl"
        self._older: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Store({self.state_file})"

    # --- identity ---------------------------------------------------------------------------------------------
    @property
    def _secret(self) -> bytes:
        path = self.directory / "install.key"
        text = files.create_once(path, lambda: secrets.token_hex(32)).strip()
        if re.fullmatch("[0-9a-f]{64}", text) is None:
            raise StateError(
                f"{path} is damaged.", hint="Remove it; pods made with it are ended by their ids."
            )
        return bytes.fromhex(text)

    @property
    def install_id(self) -> str:
        """Eight hex digits that every pod of this installation carries in its name."""
        return hmac.new(self._secret, b"install id", hashlib.sha256).hexdigest()[:8]

    def marks(self, state: State) -> set[str]:
        """Every install id under which this installation has made machines, its secret lost or not."""
        with suppress(StateError):
            return state.marks | {self.install_id}
        return state.marks

    def pod_key(self, name: str) -> Secret:
        """The API key of the model server on the pod ``name`` (256 bit, derived, never stored)."""
        derived = hmac.new(self._secret, b"pod key " + name.encode(), hashlib.sha256).hexdigest()
        return self._learned(Secret(f"sk-llmpod-{derived}", "this installation"))

    @property
    def proxy_key(self) -> Secret:
        """The key with which our own commands call a proxy that asks for keys; derived like those of pods."""
        return self.pod_key("caller of the proxy")

    def _learned(self, secret: Secret) -> Secret:
        self.veil.learn(secret)
        return secret

    def server_key(self, record: Record) -> Secret | None:
        """The key of the model server of a record; None when it has none.

        One that somebody else runs has a key of its own in a private file; it is read each time, so it may change.
        """
        if record.key_file is None:
            return self.pod_key(record.name) if record.name else None
        if not record.key_file:
            return None
        with suppress(
            OSError, UnicodeDecodeError, BadCredentials
        ):  # then it answers 401, which the probe tells
            value = read_private(Path(record.key_file)).strip()
            return self._learned(Secret(value, record.key_file)) if value else None
        return None

    # --- state --------------------------------------------------------------------------------------------------
    def lock(self, *, wait_seconds: float = 0.0) -> AbstractContextManager[None]:
        """The right to run a pass; see :func:`llmpod.lifecycle.files.locked`."""
        return files.locked(self.directory / "lock", wait_seconds=wait_seconds)

    def load(self) -> State:
        """Raises StateError when the file is unreadable or was written by a newer version."""
        document = files.read_json(self.state_file)
        if document is None:
            return State()
        schema = document.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise NewerState(
                f"{self.state_file} was written by a newer llmpod (schema {schema}).",
                hint="Use that version; `--shutdown` still terminates the pods with this one.",
            )
        if schema != SCHEMA:
            self._older = document
        try:
            return decode(document)  # schema 1 only lacked fields that have defaults
        except ValueError as e:
            raise StateError(f"{self.state_file} is damaged ({e!r}).") from None

    def save(self, state: State) -> None:
        """Durable before it returns; what an older version wrote is kept beside it, for a way back.

        Raises:
            StateError: it cannot be written; then nothing may be created.
        """
        self._keep_older()
        with suppress(StateError):  # without its secret, the mark that was used before is still the mark
            state = replace(state, install_id=self.install_id)
        document = encode(self._veiled(state))
        files.write_atomic(self.state_file, json.dumps(document, indent=2) + "\n")

    def _veiled(self, state: State) -> State:
        """With others' words, such as a provider's, without the secrets that they may repeat."""
        records = {n: replace(r, error=self.veil.live(r.error)) for n, r in state.records.items()}
        trouble = state.trouble
        if trouble is not None:
            trouble = replace(trouble, text=self.veil.live(trouble.text))
        return replace(state, records=records, trouble=trouble)

    def _keep_older(self) -> None:
        if self._older is not None:
            backup = self.state_file.with_name(f"{self.state_file.name}.schema{self._older.get('schema')}")
            files.write_atomic(backup, json.dumps(self._older, indent=2) + "\n")
            self._older = None

    def tidy(self) -> None:
        """Remove what killed processes left half written; the caller holds the lock."""
        files.sweep_temporaries(self.directory)
        files.sweep_temporaries(self.state_file.parent, self.state_file.name)

    def set_aside(self, now: float) -> Path | None:
        """Move an unreadable state file out of the way, keeping it."""
        target = self.state_file.with_name(f"{self.state_file.name}.corrupt-{int(now)}")
        if not self.state_file.exists():
            return None
        self.state_file.replace(target)
        return target

    # --- the configuration ---------------------------------------------------------------------------------------
    def keep_config(self, raw: Mapping[str, Any]) -> None:
        """Remember the configuration of this pass. Raises StateError when the disk refuses."""
        if self.kept_config() != raw:
            files.write_atomic(self.directory / "last_config.json", json.dumps(raw))

    def kept_config(self) -> dict[str, Any] | None:
        """The configuration of the last pass, or None."""
        try:
            return files.read_json(self.directory / "last_config.json")
        except StateError:
            return None

    # --- orders -------------------------------------------------------------------------------------------------
    def orders(self) -> dict[str, Want]:
        """What was ordered, by model. Raises StateError when unreadable: then nothing may be created."""
        document = files.read_json(self.directory / "orders.json") or {}
        try:
            return {name: typed(Want, item) for name, item in document.items()}
        except ValueError as e:
            raise StateError(f"{self.directory / 'orders.json'} is damaged ({e!r}).") from None

    def order(self, changes: Mapping[str, Want]) -> None:
        """Write a person's orders durably; needs no pass lock, so ``down`` works while a pass runs.

        Only these replace a damaged file: what a machine would write there could be the opposite of what was ordered.
        """
        self._order(lambda _: changes, mend=True)

    def order_instead(self, old: Mapping[str, Want | None], new: Mapping[str, Want]) -> None:
        """Write those of ``new`` whose order is still the ``old`` one: a person's newer word stands.

        Raises:
            StateError: the file is damaged or cannot be written; a machine's order never replaces a damaged file.
        """
        self._order(lambda now: {name: want for name, want in new.items() if now.get(name) == old.get(name)})

    def forget_orders(self, models: Collection[str]) -> None:
        """Raises StateError."""
        if not self.orders().keys().isdisjoint(models):
            self._order(lambda _: {}, without=models)

    def _order(
        self,
        changes: Callable[[Mapping[str, Want]], Mapping[str, Want]],
        *,
        mend: bool = False,
        without: Collection[str] = (),
    ) -> None:
        with files.locked(self.directory / "orders.lock", wait_seconds=10):
            try:
                orders = self.orders()
            except StateError:
                if not mend:
                    raise
                orders = {}
            orders |= changes(orders)
            document = {name: asdict(want) for name, want in orders.items() if name not in without}
            files.write_atomic(self.directory / "orders.json", json.dumps(document, indent=2) + "\n")

    # --- usage --------------------------------------------------------------------------------------------------
    def usage(self) -> dict[str, Usage]:
        """What the proxy last reported; empty when it never did or the file is damaged (it is only a hint)."""
        try:
            document = files.read_json(self.directory / "usage.json") or {}
            return {name: typed(Usage, item) for name, item in document.items()}
        except (StateError, ValueError):
            return {}

    # --- how long starts take -----------------------------------------------------------------------------------
    def add_start(self, gpu: str, model: str, seconds: float) -> None:
        """Append one measured start (creation to first real answer)."""
        line = json.dumps({"gpu": gpu, "model": model, "seconds": round(seconds, 1)})
        with suppress(OSError), self.starts_file.open("a", encoding="utf-8") as file:  # only a statistic
            file.write(line + "\n")

    def typical_start(self, model: str) -> tuple[float, int] | None:
        """Median seconds of this model's last nine starts and how many these are; None without history."""
        try:
            starts = [start["seconds"] for start in self.starts() if start["model"] == model][-9:]
        except (KeyError, TypeError):
            return None
        return (round(float(median(starts)), 1), len(starts)) if starts else None

    def starts(self) -> list[dict[str, Any]]:
        """The measured starts, oldest first; none when the file is not there or damaged (it is only a statistic)."""
        try:
            return [json.loads(line) for line in self.starts_file.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            return []
