"""Not a place for behaviour: one small tree of errors, named by what the caller should do.

Each class knows the HTTP status and OpenAI error ``type``/``code`` it has on the wire and the exit code it has
at the terminal (sysexits.h where one fits). The message says what happened and why; ``hint`` says what to do
next. Foreign exceptions never leave the file that owns the library: it turns them into one of these.
"""

from typing import Any, ClassVar


class LlmpodError(Exception):
    """Base of all our errors.

    Args:
        message: what happened and why, for a person; never holds a secret.
        hint: what to do next; empty when the message says it already.
        retry_after: seconds after which trying again makes sense, or None.
        param: the request field or config path at fault, or None.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    exit_code: ClassVar[int] = 1

    def __init__(
        self, message: str, *, hint: str = "", retry_after: float | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        self.param = param

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def as_openai(self) -> dict[str, Any]:
        """The body of an error answer in the shape OpenAI's clients read: ``{"error": {...}}``."""
        return {
            "error": {"message": str(self), "type": self.type, "param": self.param, "code": self.code},
        }


# --- at the terminal -----------------------------------------------------------------------------------------
class ConfigError(LlmpodError):
    """The configuration is wrong; a person must change it."""

    status, type, code, exit_code = 500, "config_error", "bad_config", 78


class Busy(LlmpodError):
    """Another pass holds the lock; it does the work. Not a failure (EX_TEMPFAIL tells scripts apart)."""

    code, exit_code = "busy", 75


class StateError(LlmpodError):
    """The state file is unreadable, newer than this program, or cannot be written; nothing is created."""

    code, exit_code = "bad_state", 78


class NewerState(StateError):
    """The state file was written by a newer version; it is left alone."""

    code = "newer_state"


class PortTaken(LlmpodError):
    """The address the proxy should listen on is in use by somebody else."""

    code, exit_code = "port_taken", 98


class ProxyCrashed(LlmpodError):
    """The proxy crashes again and again; it is left alone for a while (EX_SOFTWARE)."""

    code, exit_code = "proxy_crashed", 70


class Declined(LlmpodError):
    """A person said no to the priced plan."""

    code, exit_code = "declined", 1


# --- a provider of machines ------------------------------------------------------------------------------------
class ProviderError(LlmpodError):
    """Something between us and the provider of machines went wrong. ``at``: the provider's own time then, if told."""

    status, code, exit_code = 502, "provider_error", 69
    at: float | None = None


class ProviderUnavailable(ProviderError):
    """The provider did not answer, or answered 5xx or 429; the same *read* may be tried again later."""

    status, code, exit_code = 503, "provider_unavailable", 75


class CreateUnknown(ProviderError):
    """A create call ended without a clear answer: the instance may exist and may be billed.

    Never create again on this; look for the instance by its unique name instead.
    """

    code, exit_code = "create_unknown", 75


class NoCapacity(ProviderError):
    """The provider has no machine of this type now: provably not created; try the next candidate."""

    code, exit_code = "no_capacity", 75


class Refused(ProviderError):
    """The provider does not hear us, and asking again will not change that: a person must."""


class BadCredentials(Refused):
    """The provider refused our key (missing, revoked or without the right)."""

    code, exit_code = "bad_credentials", 77


class NoMoney(ProviderError):
    """The account's balance is too low."""

    status, code, exit_code = 402, "no_money", 76


class RetiredApi(Refused):
    """The provider has switched off the API version that this program speaks."""

    code, exit_code = "api_retired", 70


class BadSpec(ProviderError):
    """The provider refuses the request as such (unknown GPU, template, image, malformed body): change the config."""

    code, exit_code = "bad_spec", 78


class NotFound(ProviderError):
    """The provider does not know this instance. Soon after a create this is no proof that it is gone."""

    code, exit_code = "not_found", 69


# --- a request to the proxy --------------------------------------------------------------------------------------
class BadRequest(LlmpodError):
    """The client's request cannot be served as it is."""

    status, type, code = 400, "invalid_request_error", "bad_request"


class NotRouted(LlmpodError):
    """No such path or model here."""

    status, type, code = 404, "invalid_request_error", "not_found"


class Forbidden(LlmpodError):
    """A browser page or host that may not talk to this address."""

    status, type, code = 403, "permission_error", "forbidden"


class Unauthorized(LlmpodError):
    """Missing or wrong caller key."""

    status, type, code = 401, "authentication_error", "invalid_api_key"


class TooLarge(LlmpodError):
    """The request body is over the limit."""

    status, type, code = 413, "invalid_request_error", "request_too_large"


class ModelNotReady(LlmpodError):
    """No model server runs for this request right now; carries an honest ``retry_after`` where one is known."""

    status, type, code = 503, "server_error", "model_not_ready"


class Overloaded(LlmpodError):
    """Too many requests in flight; try again after ``retry_after`` seconds."""

    status, type, code = 503, "server_error", "overloaded"


class ShuttingDown(LlmpodError):
    """The proxy is being stopped; who starts it again decides when to ask again."""

    status, type, code = 503, "server_error", "shutting_down"


class UpstreamUnreachable(LlmpodError):
    """The model server could not be reached (refused, reset before the answer, DNS, TLS)."""

    status, type, code = 502, "upstream_error", "upstream_unreachable"


class UpstreamUntrusted(UpstreamUnreachable):
    """The model server could not prove who it is, or speaks no TLS that is still good."""

    code = "upstream_tls"


class UpstreamTimeout(LlmpodError):
    """The model server did not answer in time (connect, first byte, idle or total)."""

    status, type, code = 504, "upstream_error", "upstream_timeout"


class UpstreamInvalid(LlmpodError):
    """The model server's answer is malformed or was cut off before its end."""

    status, type, code = 502, "upstream_error", "upstream_invalid"
