"""Not a client library: a connection to our own proxy, wherever on this machine it listens."""

import http.client

from llmpod.cli.checks_files import trusting
from llmpod.config import PodConfig, reached_at


def connection(common: PodConfig, *, timeout: float) -> http.client.HTTPConnection:
    """Not open yet; to the proxy's own certificate where it has one.

    Args:
        common: says where it listens.
        timeout: seconds, for each step.

    Raises:
        OSError: the certificate cannot be read.
    """
    host, port = reached_at(common.proxy_host), common.proxy_port
    if common.use_https and common.ssl_cert is not None:
        return http.client.HTTPSConnection(host, port, timeout=timeout, context=trusting(common.ssl_cert))
    return http.client.HTTPConnection(host, port, timeout=timeout)
