"""Not the running parts: ``doctor``'s look at configuration, state, orders, cache, disk and certificates."""

import os
import shlex
import ssl
from collections.abc import Iterator
from pathlib import Path

from llmpod.cli.checks import UPDATE, Check, Site, ok, ownership, problem, warning, write_mend, write_trouble
from llmpod.errors import NewerState, StateError

LITTLE_BYTES = 256 * 2**20
TOO_LITTLE_BYTES = 16 * 2**20
_HANDSHAKE_STEPS = 6


def config(site: Site) -> Check:
    """Whether the configuration is valid."""
    if site.config_error is None:
        models = ", ".join(model.hub_id for model in site.config.models.values())
        return ok("config", f"{site.config.path} is valid: {models}")
    return problem(
        "config", site.config_error.message, site.edit if site.config.path.exists() else site.manage("init")
    )


def directory(path: Path) -> Check:
    """The directory of our own files: private, ours, writable.

    Args:
        path: it; looked at before anything opens it, since opening sets its mode.
    """
    if not path.exists() and not path.is_symlink():
        place = existing(path.parent)
        if trouble := write_trouble(place):
            return problem(
                "directory", f"{path} cannot be made: {trouble.strerror}", write_mend(place, trouble)
            )
        return ok("directory", f"{path} will be made by the first pass")
    if fault := ownership("directory", path, mode=0o700):
        return fault
    for place in (path, path.parent.parent):  # the state file itself stands beside `.llmpod`
        if trouble := write_trouble(place):
            return problem(
                "directory",
                f"nothing can be written in {place}: {trouble.strerror}",
                write_mend(place, trouble),
            )
    return ok("directory", f"{path} is private and writable")


def state(site: Site) -> Check:
    """Whether the state file can be read, by us alone."""
    path = site.config.state_file
    if not path.exists():
        return ok("state", f"there is no {path} yet")
    if fault := ownership("state", path, mode=0o600):
        return fault
    if site.store is None:
        return ok("state", "not read as long as the directory is not in order")
    try:
        site.store.load()
    except NewerState as e:
        return problem("state", e.message, UPDATE)
    except StateError as e:
        return problem("state", e.message, f"{site.manage()}   # a pass rebuilds it from RunPod's list")
    return ok("state", f"{path} is readable")


def orders(site: Site) -> Check:
    """Whether the orders can be read; unreadable ones keep every pass from creating."""
    path = site.directory / "orders.json"
    if site.store is None or not path.exists():
        return ok("orders", "none were given yet")
    if fault := ownership("orders", path, mode=0o600):
        return fault
    try:
        found = site.store.orders()
    except StateError as e:
        return problem(
            "orders", e.message, f"{site.manage('down')}   # or `up`: a new order replaces the file"
        )
    return ok("orders", ", ".join(f"{name} {want.direction} by {want.by}" for name, want in found.items()))


def log(site: Site) -> Iterator[Check]:
    """Whether the log file that this call was given can be written."""
    if path := site.call.options.log_file:
        yield log_file(path.absolute())


def log_file(path: Path) -> Check:
    """Whether a pass can append to its log there."""
    if path.is_dir():
        return problem("log", f"{path} is a directory", f"rmdir {shlex.quote(str(path))}")
    if trouble := write_trouble(path.parent) or _append_trouble(path):
        return problem(
            "log", f"{path} cannot be written: {trouble.strerror}", write_mend(path.parent, trouble)
        )
    return ok("log", f"{path} is writable")


def _append_trouble(path: Path) -> OSError | None:
    try:
        if path.exists():
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
    except OSError as e:
        return e
    return None


def cache(site: Site) -> Check:
    """Whether the proxy can keep answers."""
    path = site.config.common.cache_dir
    if not path.exists() and not path.is_symlink():
        place = existing(path.parent)
        if trouble := write_trouble(place):
            return problem("cache", f"{path} cannot be made: {trouble.strerror}", write_mend(place, trouble))
        return ok("cache", f"{path} will be made by the proxy")
    if not path.is_dir():
        return problem("cache", f"{path} is not a directory", f"{site.edit}   # set another cache_dir")
    if path.stat().st_uid != os.geteuid():
        return problem(
            "cache", f"{path} belongs to user {path.stat().st_uid}", f"{site.edit}   # set another cache_dir"
        )
    if path.stat().st_mode & 0o022:
        return problem("cache", f"others may write to {path}", f"chmod 700 {shlex.quote(str(path))}")
    if trouble := write_trouble(path):
        return problem("cache", f"{path} cannot be written: {trouble.strerror}", write_mend(path, trouble))
    return ok("cache", f"{path} is usable")


def disk(site: Site) -> Iterator[Check]:
    """Room where the state and the cache are."""
    for what, path in (("state", site.config.state_file.parent), ("cache", site.config.common.cache_dir)):
        place = existing(path)
        info = os.statvfs(place)
        free = info.f_bavail * info.f_frsize
        text, mend = (
            f"{free / 2**20:.0f} MiB free for the {what} ({place})",
            f"df -h {shlex.quote(str(place))}",
        )
        if free < TOO_LITTLE_BYTES:
            yield problem("disk", text, f"{mend}   # and make room there")
        elif free < LITTLE_BYTES:
            yield warning("disk", text, f"{mend}   # and make room there")
        else:
            yield ok("disk", text)


def existing(path: Path) -> Path:
    """The path itself or its nearest parent that exists."""
    return next(place for place in (path, *path.parents) if place.exists())


# --- TLS ------------------------------------------------------------------------------------------------------------
def tls(site: Site) -> Iterator[Check]:
    """Whether the proxy's certificate and key can be used, when it is to use them."""
    common = site.config.common
    if not common.use_https:
        return
    if common.ssl_cert is None or common.ssl_key is None:
        yield problem("tls", "use_https needs ssl_cert and ssl_key", site.edit)
        return
    for path in (common.ssl_cert, common.ssl_key):
        if not os.access(path, os.R_OK):
            yield problem(
                "tls", f"{path} cannot be read", f"ls -l {shlex.quote(str(path))}   # or {site.edit}"
            )
            return
    if fault := _tls_fault(common.ssl_cert, common.ssl_key):
        yield problem("tls", f"{common.ssl_cert} with {common.ssl_key}: {fault}", site.edit)
    elif common.ssl_key.stat().st_mode & 0o077:
        key = shlex.quote(str(common.ssl_key))
        yield warning("tls", f"others may read {common.ssl_key}", f"chmod 600 {key}")
    else:
        yield ok("tls", f"{common.ssl_cert} is valid and fits its key")


def _tls_fault(certificate: Path, key: Path) -> str:
    """What a client that trusts just this certificate finds wrong with it, by a handshake in memory."""
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate, key, password="")  # or it would ask at the terminal
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        _shake(trusting(certificate).wrap_bio(back, there), server.wrap_bio(there, back, server_side=True))
    except ssl.SSLCertVerificationError as e:
        return e.verify_message
    except (OSError, ssl.SSLError) as e:
        return str(e.strerror or e)
    return ""


def trusting(certificate: Path) -> ssl.SSLContext:
    """A client that trusts this one certificate, for whatever name it bears. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def _shake(*ends: ssl.SSLObject) -> None:
    for _ in range(_HANDSHAKE_STEPS):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
