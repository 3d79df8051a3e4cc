"""The control plane's one kind of HTTP session: where it does not go."""

import pytest
import requests

from llmpod.web import Session
from tests.support.rawserver import answering


@pytest.mark.parametrize(
    "host",
    ["169.254.7.7", "2851997447", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.7.7]", "[::]"],
)
def test_nothing_is_sent_to_a_metadata_service(host: str) -> None:
    """T14: by whatever spelling. Not the usual address: where this fails in a cloud, somebody would answer there."""
    with Session() as session, pytest.raises(requests.ConnectionError, match=r"leads to .* which is "):
        session.get(f"http://{host}/", timeout=20)


def test_what_is_a_server_is_asked() -> None:
    with answering("hello") as url, Session() as session:
        assert session.get(url, timeout=20).text == "hello"
        assert session.get(url.replace("127.0.0.1", "localhost"), timeout=20).text == "hello"


def test_a_name_that_leads_nowhere_is_an_error_of_the_connection() -> None:
    with Session() as session, pytest.raises(requests.ConnectionError):
        session.get("http://no-such-name.invalid/", timeout=20)
