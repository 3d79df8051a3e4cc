"""Not a place for decisions: what happened, as lines of JSON, as numbers, and as one page."""

from llmpod.observe.journal import Journal, Seen
from llmpod.observe.logs import Log, open_log
from llmpod.observe.metrics import Metrics

__all__ = ["Journal", "Log", "Metrics", "Seen", "open_log"]
