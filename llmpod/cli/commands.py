"""Not their doing: the words of ``manage_pod.py``, in the order in which the help shows them."""

from collections.abc import Sequence

from llmpod.cli.cache import COMMAND as CACHE
from llmpod.cli.catalog import CATALOG
from llmpod.cli.command import Command
from llmpod.cli.completion import COMMAND as COMPLETION
from llmpod.cli.connect import COMMAND as CONNECT
from llmpod.cli.cost import COMMAND as COST
from llmpod.cli.doctor import COMMAND as DOCTOR
from llmpod.cli.init import COMMAND as INIT
from llmpod.cli.keys import COMMAND as KEYS
from llmpod.cli.logs import COMMAND as LOGS
from llmpod.cli.panic import COMMAND as PANIC
from llmpod.cli.passes import DOWN, PASS, PLAN, STATUS, UP
from llmpod.cli.run import DEMO, RUN
from llmpod.cli.schedule import COMMAND as SCHEDULE
from llmpod.cli.tls import COMMAND as TLS

COMMANDS: Sequence[Command] = (
    PASS,
    UP,
    DOWN,
    STATUS,
    PLAN,
    COST,
    CATALOG,
    CACHE,
    LOGS,
    SCHEDULE,
    DOCTOR,
    PANIC,
    CONNECT,
    KEYS,
    TLS,
    INIT,
    COMPLETION,
    RUN,
    DEMO,
)
