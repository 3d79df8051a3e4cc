"""Not a pod manager: speaks RunPod's REST API v2 over HTTPS and turns every answer into a value or one of our errors.

Source of the facts: RunPod's OpenAPI document of 2026-08-20 and its error table (api-reference-v2). Errors are
``application/problem+json`` (RFC 9457); anything else comes from the network in front of it. A create is not
idempotent there: a 5xx or a cut connection can leave a billed pod behind.
"""

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import quote

import requests
import urllib3.exceptions

from llmpod import __version__
from llmpod.config.credentials import Missing
from llmpod.errors import (
    BadCredentials,
    BadSpec,
    CreateUnknown,
    NoCapacity,
    NoMoney,
    NotFound,
    ProviderError,
    ProviderUnavailable,
    RetiredApi,
)
from llmpod.secret import Secret
from llmpod.text import one_line
from llmpod.web import Session

USER_AGENT = f"llmpod/{__version__}"
CONNECT_SECONDS = 10.0
READ_SECONDS = 30.0
CREATE_SECONDS = 90.0
_PAGE_LIMIT = 1000
_NOT_CREATED = frozenset(
    {400, 401, 402, 403, 404, 405, 410, 413, 422, 429}
)  # all else leaves a create unclear
_MAX_PAGES = 1000


class RunpodApi:
    """A connection to the API.

    Args:
        base_url: ``https://api.runpod.io`` or the simulator.
        key: the account's key; sent in the Authorization header only.
    """

    def __init__(self, base_url: str, key: Secret) -> None:
        self._base = base_url.rstrip("/")
        self.said_at: float | None = None
        """The time of RunPod's latest answer by its own clock (``Date`` header)."""
        self._session = Session()
        self._session.headers["User-Agent"] = USER_AGENT
        self._session.auth = self._signed
        self._key = key

    def __repr__(self) -> str:
        return f"RunpodApi({self._base})"

    def close(self) -> None:
        self._session.close()

    def _signed(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """A request with the key. Raises BadCredentials: there is none."""
        if isinstance(self._key, Missing):
            raise BadCredentials(self._key.why.message, hint=self._key.why.hint)
        request.headers["Authorization"] = f"Bearer {self._key.reveal().strip()}"
        return request

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """A reading call; tried twice, since a keep-alive connection may have died meanwhile.

        Raises:
            ProviderError: of the kind that says what to do.
        """
        try:
            response = self._send("GET", path, params=query)
        except ProviderUnavailable:
            response = self._send("GET", path, params=query)
        return self._object(response)

    def pages(self, path: str, item: str) -> Iterator[dict[str, Any]]:
        """All items of a listing, following ``pagination.nextCursor``; servers without pagination send one page."""
        query = {"limit": str(_PAGE_LIMIT)}
        for _ in range(_MAX_PAGES):
            page = self.get(path, **query)
            items = page.get(item)
            if not isinstance(items, list):
                raise ProviderUnavailable(f"RunPod's listing has no `{item}`.")
            yield from (entry for entry in items if isinstance(entry, dict))
            pagination = page.get("pagination") or {}
            cursor = pagination.get("nextCursor")
            if not pagination.get("hasNextPage") or not cursor:
                return
            query["cursor"] = str(cursor)
        raise ProviderUnavailable(f"RunPod's listing did not end after {_MAX_PAGES} pages.")

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One creating call, never repeated.

        Raises:
            CreateUnknown: no clear answer; the thing may exist.
            ProviderError: provably not created.
        """
        return self._once("POST", path, body)

    def change(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """One changing call (PATCH), never repeated, with the same outcomes as a create."""
        return self._once("PATCH", path, body)

    def _once(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        call = f"{'create' if method == 'POST' else 'change'} call"
        try:
            response = self._session.request(
                method,
                self._base + path,
                json=body,
                timeout=(CONNECT_SECONDS, CREATE_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as e:
            if _never_sent(e):
                raise ProviderUnavailable(f"Cannot reach RunPod ({_reason(e)}).") from None
            raise CreateUnknown(f"RunPod did not answer the {call} ({_reason(e)}).") from None
        if 200 <= response.status_code < 300:
            return self._created(response, call)
        if response.status_code not in _NOT_CREATED:
            raise CreateUnknown(
                f"RunPod answered the {call} with {response.status_code}: {_detail(response)}"
            )
        _refuse(response)

    def delete(self, path: str) -> bool:
        """Order a deletion; True when accepted, False when RunPod does not know the thing (404)."""
        try:
            try:
                self._send("DELETE", path)
            except ProviderUnavailable:  # a delete may be repeated
                self._send("DELETE", path)
        except NotFound:
            return False
        return True

    def chunks(
        self, path: str, *, read_seconds: float, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Iterator[bytes]:
        """The pieces of an endless answer, as they come; the first is empty and says that there is an answer.

        Ends when nothing came for ``read_seconds``.

        Raises:
            ProviderUnavailable: it cannot be opened, was cut off or ended; it may be opened again.
            ProviderError: it was refused.
        """
        try:
            with self._session.get(
                self._base + path,
                params=query,
                headers={**headers, "Accept": "text/event-stream", "Accept-Encoding": "identity"},
                stream=True,
                timeout=(CONNECT_SECONDS, read_seconds),
                allow_redirects=False,
            ) as response:
                if response.status_code != 200:
                    _refuse(response)
                yield b""
                while piece := response.raw.read1(65536):
                    yield piece
        except (requests.ReadTimeout, urllib3.exceptions.ReadTimeoutError):
            return
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            raise ProviderUnavailable(f"RunPod's stream was cut off ({type(e).__name__}).") from None
        raise ProviderUnavailable("RunPod ended its stream.")

    def _send(self, method: str, path: str, params: Mapping[str, str] | None = None) -> requests.Response:
        try:
            response = self._session.request(
                method,
                self._base + path,
                params=params,
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except requests.RequestException as e:
            raise ProviderUnavailable(
                f"Cannot reach RunPod ({_reason(e)}).", hint="Nothing was changed; the next pass tries again."
            ) from None
        self.said_at = _date(response)
        if response.status_code >= 300:
            _refuse(response)
        return response

    def _object(self, response: requests.Response) -> dict[str, Any]:
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ProviderUnavailable(f"RunPod's answer is not a JSON object: {response.text[:80]!r}")
        return value

    def _created(self, response: requests.Response, call: str) -> dict[str, Any]:
        try:
            value = self._object(response)
        except ProviderUnavailable as e:
            raise CreateUnknown(f"The {call} succeeded, but {e.message}") from None
        if not isinstance(value.get("id"), str):
            raise CreateUnknown(f"The {call} succeeded, but RunPod's answer has no id.")
        return value


def path_id(value: str) -> str:
    """An id as one path segment."""
    return quote(value, safe="")


def _date(response: requests.Response) -> float | None:
    try:
        return parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _never_sent(error: requests.RequestException) -> bool:
    """True only where no byte of the request can have left: the connection itself was never made."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    cause = error.args[0] if error.args else None
    reason = getattr(cause, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _reason(error: requests.RequestException) -> str:
    cause = error.args[0] if error.args else error
    reason = getattr(cause, "reason", cause)
    return str(reason).rpartition(": ")[2][:160] or type(error).__name__


def _problem(response: requests.Response) -> dict[str, Any] | None:
    try:
        value = response.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _detail(response: requests.Response) -> str:
    problem = _problem(response)
    if problem is None:
        return one_line(response.text[:400].strip() or response.reason or "", 200)
    text = str(problem.get("detail") or problem.get("error") or problem.get("title") or "")
    errors = [str(e) for e in problem.get("errors") or []]
    # One wrong field makes RunPod's validator report valid fields as unexpected too: the cause goes first.
    errors.sort(key=lambda e: "additional properties" in e or "unevaluated" in e)
    return one_line("; ".join([text, *errors[:4]]) if errors else text, 400)


def retry_after(response: requests.Response) -> float:
    """Seconds to wait after a 429: the longest of ``Retry-After`` and every exhausted window of ``RateLimit``."""
    waits = [5.0]
    if response.headers.get("Retry-After", "").isdigit():
        waits.append(float(response.headers["Retry-After"]))
    for window in response.headers.get("RateLimit", "").split(","):
        values = dict(part.split("=", 1) for part in window.split(";")[1:] if "=" in part)
        if values.get("r") == "0" and values.get("t", "").isdigit():
            waits.append(float(values["t"]))
    return min(max(waits), 86400.0)


def _refuse(response: requests.Response) -> NoReturn:
    """Turn a refusal into the error that says what to do. All of them mean: not executed, except 5xx."""
    status, detail = response.status_code, _detail(response)
    said = f"RunPod said {status}: {detail}"
    if status == 429:
        wait = retry_after(response)
        raise ProviderUnavailable(said, hint=f"Too many calls; wait {wait:.0f} s.", retry_after=wait)
    if status == 403 and _problem(response) is None:
        raise ProviderUnavailable(
            said, hint="This came from the network in front of RunPod, not from RunPod."
        )
    kinds: dict[int, tuple[type[ProviderError], str]] = {
        400: (NoCapacity, ""),
        401: (BadCredentials, "Make a new key at https://console.runpod.io/user/settings and try again."),
        402: (NoMoney, "Add credit to the RunPod account."),
        403: (BadCredentials, "The key lacks the right for this; it needs read and write access to pods."),
        404: (NotFound, ""),
        410: (RetiredApi, "Update llmpod: it speaks an API version that RunPod has switched off."),
        409: (ProviderError, "The pod is in another state than expected; the next pass looks again."),
        413: (BadSpec, "The request is over 102,400 bytes; shorten vllm_args."),
        422: (BadSpec, "Correct pod_config.json; `python3 manage_pod.py --refresh-catalog` checks its ids."),
    }
    kind, hint = kinds.get(status, (ProviderUnavailable, "The next pass tries again."))
    error = kind(said, hint=hint)
    error.at = _date(response)  # a refusal tells the time as well as an answer
    raise error
