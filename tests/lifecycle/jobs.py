"""The job of the tests: an installation in directories whose names need every kind of quoting."""

from pathlib import Path

from llmpod.lifecycle.schedule import Job

ID = "0123abcd"


def job(**changes: object) -> Job:
    values: dict[str, object] = {
        "install_id": ID,
        "python": Path("/opt/llm pod/.venv/bin/python"),
        "script": Path("/opt/llm pod/manage_pod.py"),
        "config": Path("/home/ann/50% off's/pod_config.json"),
        "log_file": Path("/home/ann/.local/state/llmpod/0123abcd.log"),
        **changes,
    }
    return Job(**values)  # type: ignore[arg-type]
