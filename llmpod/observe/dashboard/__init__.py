"""Not a web framework: one static page, and the header fields that keep it from doing anything else.

The page shows what ``GET /dashboard`` says as JSON, as text only. Its script and style are allowed by their hash;
nothing else may run, load or frame it (T21, T22).
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True, slots=True)
class Page:
    """The page and the fields it is sent with."""

    html: bytes
    headers: Mapping[str, str]


def _hashes(html: str, tag: str) -> str:
    """CSP sources for every inline element of a kind (CSP level 3, 6.6.2.2: base64 of SHA-256 of its text)."""
    texts = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
    digests = [hashlib.sha256(text.encode()).digest() for text in texts]
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def load_page() -> Page:
    """Read the page that ships with the package."""
    html = (resources.files(__package__) / "index.html").read_text(encoding="utf-8")
    policy = [
        "default-src 'none'",
        f"script-src {_hashes(html, 'script')}",
        f"style-src {_hashes(html, 'style')}",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cross-origin-resource-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "cache-control": "no-store",
    }
    return Page(html.encode(), headers)
