"""Not a proxy: exact answers to exact questions, kept in memory and on disk, and shared while they are made."""

from llmpod.cache.answer import Verdict, verdict
from llmpod.cache.cache import Cache
from llmpod.cache.entry import Entry
from llmpod.cache.flight import Flight, Flights, Head
from llmpod.cache.inspect import Contents, Stored, Verified
from llmpod.cache.key import AliasTable, RequestKey, question_of, request_key
from llmpod.cache.listener import Listener
from llmpod.cache.masks import MASKS
from llmpod.cache.offline import import_lines, purge
from llmpod.cache.policy import STORING, KeyPolicy
from llmpod.cache.sse import FrameScanner
from llmpod.cache.state import Disk
from llmpod.cache.tidy import USES_SECONDS

__all__ = [
    "MASKS",
    "STORING",
    "USES_SECONDS",
    "AliasTable",
    "Cache",
    "Contents",
    "Disk",
    "Entry",
    "Flight",
    "Flights",
    "FrameScanner",
    "Head",
    "KeyPolicy",
    "Listener",
    "RequestKey",
    "Stored",
    "Verdict",
    "Verified",
    "import_lines",
    "purge",
    "question_of",
    "request_key",
    "verdict",
]
