"""Not a client: the one kind of HTTP session that the control plane uses towards servers that are not trusted."""

import socket
from typing import Any
from urllib.parse import urlsplit

import requests

from llmpod.places import no_server_at


class Session(requests.Session):
    """Goes where it is told, and nowhere else: no proxy, no .netrc, no redirect, no metadata service (T14).

    ``allow_redirects=False`` alone is not enough: requests then still prepares the request that would follow, for
    which it reads the redirect's whole body, however large, and fails with a bare ValueError on a strange address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere; the caller sees the redirect itself."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Raises requests.ConnectionError, before anything is sent, when a name leads to where no server is."""
        host = urlsplit(request.url or "").hostname or ""
        for address in _addresses(host):
            if what := no_server_at(address):
                raise requests.ConnectionError(f"{host} leads to {address}, which is {what}")
        return super().send(request, **kwargs)


def _addresses(host: str) -> list[str]:
    """Where a name leads; nowhere, when nobody knows, which is for the connection to say."""
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError):
        return []
