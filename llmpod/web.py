"""Not a client: the one kind of HTTP session that the control plane uses towards servers that are not trusted."""

import requests


class Session(requests.Session):
    """Goes where it is told, and nowhere else: no proxy, no .netrc, no redirect.

    ``allow_redirects=False`` alone is not enough: requests then still prepares the request that would follow, for
    which it reads the redirect's whole body, however large, and fails with a bare ValueError on a strange address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Nowhere; the caller sees the redirect itself."""
