"""Not a certificate authority for others: makes one for this machine, and a certificate of it for the proxy.

The work is done by the ``openssl`` program, so that no library is needed for what is done once in three months. A
second ``tls init`` keeps the authority and renews the certificate; the running proxy takes it over by itself.
"""

import argparse
import ipaddress
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from llmpod.cli.command import Command, Invocation
from llmpod.config import expires_at
from llmpod.config.children import child_environ
from llmpod.errors import ConfigError, LlmpodError
from llmpod.lifecycle import files
from llmpod.lifecycle.store import Store

CA_DAYS: Final = 3650
LEAF_DAYS: Final = 90
NAMES: Final = ("localhost", "127.0.0.1", "::1")
_KEY: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
_SECONDS: Final = 30
_NAME: Final = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_CONFIG: Final = """[req]
prompt = no
distinguished_name = {section}_name
[ca_name]
CN = llmpod local CA {tag}
[leaf_name]
CN = llmpod proxy
[ca]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = {names}
"""


def run(call: Invocation) -> int:
    """``tls init|show``.

    Raises:
        ConfigError: a name is none, or there is no openssl.
        LlmpodError: openssl failed.
    """
    config = call.config(salvage=True)
    folder = call.options.dir or Store(config.state_file).directory / "tls"
    if call.options.action == "show":
        return _show(call, config.common.ssl_cert or folder / "cert.pem")
    issued = _Issuer(files.private_dir(folder)).issue(
        (*NAMES, *config.common.allowed_hosts, *call.options.name)
    )
    call.say(
        f"{issued} is good for {LEAF_DAYS} days. In {call.config_path}:\n"
        f'  "use_https": true, "ssl_cert": "{issued}", "ssl_key": "{folder / "key.pem"}"\n'
        f"Clients must trust {folder / 'ca.pem'} (SSL_CERT_FILE, REQUESTS_CA_BUNDLE or NODE_EXTRA_CA_CERTS);"
        f" keep {folder / 'ca.key'} to yourself."
    )
    return 0


def _show(call: Invocation, cert: Path) -> int:
    end = expires_at(cert)
    if end is None:
        raise ConfigError(f"There is no certificate in {cert}.", hint="Make one: manage_pod.py tls init")
    days = (end - time.time()) / 86400
    call.say(f"{cert}: {'expired' if days < 0 else f'{days:.0f} days left'}")
    return 0


class _Issuer:
    """The files of one local authority.

    Args:
        folder: a private directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def issue(self, names: Sequence[str]) -> Path:
        """Make a certificate for these names; the authority is made first when there is none."""
        program = shutil.which("openssl")
        if program is None:
            raise ConfigError(
                "There is no `openssl` here.", hint="Install it, or bring your own certificate."
            )
        listed = ", ".join(dict.fromkeys(_alternative(name) for name in names))
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            work = Path(scratch)
            if not (self._folder / "ca.key").exists():
                self._make_ca(program, work)
            config = _written(work, "leaf", listed)
            request, key = work / "leaf.csr", work / "key.pem"
            _openssl(program, "req", "-new", *_KEY, "-config", config, "-keyout", key, "-out", request)
            ca = ("-CA", self._folder / "ca.pem", "-CAkey", self._folder / "ca.key")
            serial = ("-set_serial", f"0x{secrets.token_hex(15)}", "-days", str(LEAF_DAYS))
            extensions = ("-extfile", config, "-extensions", "leaf", "-sha256")
            _openssl(
                program, "x509", "-req", "-in", request, *ca, *serial, *extensions, "-out", work / "leaf.pem"
            )
            chain = (work / "leaf.pem").read_text() + (self._folder / "ca.pem").read_text()
            files.write_atomic(self._folder / "key.pem", key.read_text())
            files.write_atomic(self._folder / "cert.pem", chain)
        return self._folder / "cert.pem"

    def _make_ca(self, program: str, work: Path) -> None:
        config = _written(work, "ca", "DNS:localhost")
        made = ("-keyout", work / "ca.key", "-out", work / "ca.pem")
        extra = ("-days", str(CA_DAYS), "-extensions", "ca", "-config", config)
        _openssl(program, "req", "-x509", *_KEY, *extra, *made)
        files.write_atomic(self._folder / "ca.pem", (work / "ca.pem").read_text())
        files.write_atomic(self._folder / "ca.key", (work / "ca.key").read_text())


def _written(work: Path, section: str, names: str) -> Path:
    path = work / f"{section}.cnf"
    path.write_text(_CONFIG.format(section=section, names=names, tag=secrets.token_hex(3)), encoding="ascii")
    return path


def _alternative(name: str) -> str:
    """A subjectAltName entry. Raises ConfigError."""
    try:
        return f"IP:{ipaddress.ip_address(name.strip('[]'))}"
    except ValueError:
        if _NAME.fullmatch(name) is None:
            raise ConfigError(f"{name!r} is no host name.") from None
        return f"DNS:{name}"


def _openssl(program: str, *arguments: str | Path) -> None:
    done = subprocess.run(
        [program, *map(str, arguments)],
        env=child_environ({}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        umask=0o077,
    )
    if done.returncode:
        raise LlmpodError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-300:]}")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("init", "show"))
    parser.add_argument(
        "--name", action="append", default=[], metavar="HOST", help="one more name or address"
    )
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="where the files go; default: beside the state"
    )


COMMAND = Command("tls", "a certificate for the proxy, from an authority of this machine", run, _arguments)
