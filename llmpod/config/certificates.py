"""Not a check of trust: until when a certificate file says it is good. As much DER as that needs (RFC 5280 4.1)."""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_EXPLICIT_VERSION: Final = 0xA0
_FORMATS: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}  # UTCTime, GeneralizedTime
MAX_CHARS: Final = 2**20


def expires_at(path: Path) -> float | None:
    """The end of the first certificate to end, in seconds since the epoch; None when the file tells none."""
    try:
        texts = _PEM.findall(path.read_text(encoding="ascii", errors="replace")[:MAX_CHARS])
        return min((_not_after(ssl.PEM_cert_to_DER_cert(text)) for text in texts), default=None)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _not_after(der: bytes) -> float:
    """Certificate > TBSCertificate > Validity > notAfter. Raises ValueError, KeyError, IndexError."""
    fields = _parts(_parts(_parts(der)[0][1])[0][1])
    start = 1 if fields[0][0] == _EXPLICIT_VERSION else 0
    tag, text = _parts(fields[start + 3][1])[1]  # after serial number, algorithm and issuer
    return datetime.strptime(text.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC).timestamp()


def _parts(der: bytes) -> list[tuple[int, bytes]]:
    """Tags and contents of what stands side by side. Raises IndexError."""
    parts, at = [], 0
    while at < len(der):
        tag, size, at = der[at], der[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(der[at : at + count]), at + count
        parts.append((tag, der[at : at + size]))
        at += size
    return parts
