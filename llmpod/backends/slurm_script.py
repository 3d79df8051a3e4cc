"""Not a submission: the batch script of a job, and what of the user's is in it, quoted. Pure.

The script starts the SSH tunnel and the server side by side and ends both when either ends: a server that nobody can
reach, or a tunnel to nothing, would only hold the GPU.
"""

import shlex
from collections.abc import Sequence

from llmpod.backends.local_port import HOST
from llmpod.config import SlurmSection

_SCRIPT = """#!/bin/bash
set -u
{tunnel} &
tunnel=$!
{server} &
server=$!
trap 'kill -TERM "$server" "$tunnel" 2>/dev/null' TERM
wait -n "$server" "$tunnel"
code=$?
kill -0 "$tunnel" 2>/dev/null || echo "llmpod: the SSH tunnel to "{target}" has ended" >&2
kill -TERM "$server" "$tunnel" 2>/dev/null
wait
exit "$code"
"""


def script(section: SlurmSection, *, port: int, node_port: int) -> str:
    """The batch script.

    Args:
        section: the command and where its tunnel leads.
        port: on the proxy's host, where the tunnel is opened.
        node_port: on the node, where the server listens.
    """
    return _SCRIPT.format(
        tunnel=quoted(tunnel(section, port=port, node_port=node_port)),
        server=quoted(section.words(HOST, node_port)),
        target=shlex.quote(section.target),
    )


def tunnel(section: SlurmSection, *, port: int, node_port: int) -> tuple[str, ...]:
    """The ssh command on the node.

    The address of the far end is spelled out: with a name, sshd binds [::1] alone when 127.0.0.1 is taken, and reports
    success in spite of ExitOnForwardFailure (seen with OpenSSH 9.2).
    """
    options = [
        "BatchMode=yes",
        "ExitOnForwardFailure=yes",
        "StrictHostKeyChecking=yes",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
        "ConnectTimeout=20",
    ]
    if section.known_hosts:
        options.append(f"UserKnownHostsFile={section.known_hosts}")
    words = ["ssh", "-N", "-T"]
    if section.ssh_port is not None:
        words += ["-p", str(section.ssh_port)]
    for option in options:
        words += ["-o", option]
    if section.identity_file:
        words += ["-i", section.identity_file, "-o", "IdentitiesOnly=yes"]
    return (*words, "-R", f"{HOST}:{port}:{HOST}:{node_port}", "--", section.target)


def quoted(words: Sequence[str]) -> str:
    """Words as bash reads them back, whatever is in them."""
    return " ".join(map(shlex.quote, words))
