"""Not a pass: ``doctor``'s look at the key, RunPod's API, the clock and the pods; one listing, nothing changed."""

import shlex
from collections.abc import Iterator
from contextlib import closing

from llmpod.backends import Backend, Checking, SomeAway
from llmpod.backends.several import Several
from llmpod.cli.checks import UPDATE, Check, Site, ok, problem, warning
from llmpod.cli.providers import backend_of
from llmpod.cli.scheduled import key_mend
from llmpod.config.credentials import Missing
from llmpod.errors import (
    BadCredentials,
    BadSpec,
    LlmpodError,
    NoMoney,
    NotFound,
    ProviderError,
    RetiredApi,
)
from llmpod.lifecycle import match
from llmpod.lifecycle.nouns import things_of
from llmpod.lifecycle.state import State
from llmpod.model import Listing
from llmpod.secret import Secret

SKEW_WARNING_SECONDS = 30.0
SKEW_PROBLEM_SECONDS = 300.0
NEW_KEY = "# a new key from https://console.runpod.io/user/settings"


def provider(site: Site) -> Iterator[Check]:
    """The key, and what RunPod says to it."""
    try:
        key = site.call.key(site.config)
    except LlmpodError as e:
        yield problem("key", e.message, key_mend(e, site.call.environ))
        return
    if isinstance(key, Missing):
        yield problem("key", f"{key.why.message} Some models need one.", key_mend(key.why, site.call.environ))
        with closing(backend_of(site.config, key)) as backend:
            yield from _startable(site, backend)
        return
    billed = site.config.common.is_billed
    yield ok("key", f"from {key.source}" if key.reveal() else f"{site.config.common.backend} needs none")
    if billed and site.config_error and not site.config.path.exists():
        return  # which API to ask would be a guess, and the key is not for guessed addresses
    yield from _asked(site, key)


def _asked(site: Site, key: Secret) -> Iterator[Check]:
    backend = backend_of(site.config, key)
    sent = site.clock()
    try:
        yield from _startable(site, backend)
        listing = backend.list(())
    except ProviderError as e:
        yield _refused(site, key, e)
        return
    finally:
        backend.close()
    if not site.config.common.is_billed:
        yield ok("api", f"the backend {site.config.common.backend} can be looked at")
        yield _pods(site, listing)
        return
    yield ok("api", f"{site.config.common.runpod_api_url} answers and accepts the key")
    yield _clock(listing, (sent + site.clock()) / 2)
    yield _pods(site, listing)


def _startable(site: Site, backend: Backend) -> Iterator[Check]:
    """Each model whose start this machine would refuse: its program or directory is not there."""
    for name, model in site.config.models.items():
        own: object = backend.made_for(name) if isinstance(backend, Several) else backend
        if not isinstance(own, Checking):
            continue
        try:
            own.check()
        except BadSpec as e:
            yield problem("start", f"{name} ({model.hub_id}) cannot be started: {e}", site.edit)
        else:
            yield ok("start", f"{name} ({model.hub_id}): what its start needs is there")


def _refused(site: Site, key: Secret, error: ProviderError) -> Check:
    """Each way to be refused has its own mend."""
    error = (isinstance(error, SomeAway) and error.final) or error
    url = shlex.quote(site.config.common.runpod_api_url)
    if error.retry_after is not None:
        return warning("api", error.message, f"sleep {error.retry_after:.0f} && {site.manage('doctor')}")
    if not site.config.common.is_billed:
        return problem("api", str(error), site.edit)
    if isinstance(error, BadCredentials):
        in_file = key.source.startswith("/")
        mend = f"(umask 077 && cat > {shlex.quote(key.source)})" if in_file else "read -rs RUNPOD_API_KEY"
        mend += "" if in_file else " && export RUNPOD_API_KEY"
        return problem("api", error.message, f"{mend}   {NEW_KEY}")
    if isinstance(error, RetiredApi):
        return problem("api", error.message, UPDATE)
    if isinstance(error, BadSpec | NotFound):
        return problem("api", str(error), site.edit)
    if isinstance(error, NoMoney):
        return problem("api", error.message, "open https://console.runpod.io/user/billing")
    return problem("api", error.message, f"curl -v {url}/v2/pods   # is the network up?")


def _clock(listing: Listing, now: float) -> Check:
    """Deadlines are compared with the provider's times; its ``Date`` has whole seconds (RFC 9110 5.6.7)."""
    if listing.at is None:
        return warning(
            "clock", "RunPod did not say its time", "date -u   # compare it with a clock you trust"
        )
    skew = now - (listing.at + 0.5)
    text = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} RunPod's clock"
    mend = "sudo timedatectl set-ntp true   # WSL: wsl --shutdown; macOS: sudo sntp -sS time.apple.com"
    if abs(skew) > SKEW_PROBLEM_SECONDS:
        return problem("clock", text, mend)
    return warning("clock", text, mend) if abs(skew) > SKEW_WARNING_SECONDS else ok("clock", text)


def _pods(site: Site, listing: Listing) -> Check:
    """A count only: what is wrong with a pod is for ``status``, what to do about it for the pass."""
    total, label = len(listing.instances), things_of(site.config.common.backend)
    if site.store is None:
        return ok(label, f"{total} in all")
    marks = site.store.marks(site.state or State())
    ours = sum(match.made_by(marks, instance) for instance in listing.instances)
    return ok(label, f"{ours} of this installation, {total - ours} of others")
