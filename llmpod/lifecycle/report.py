"""Not a log: what one pass did, for whoever asked for it."""

from dataclasses import dataclass, field

from llmpod.errors import LlmpodError
from llmpod.model import Instance, Phase


@dataclass(slots=True)
class Report:
    """What a pass did, in words.

    ``error`` is the first failure, ``remaining`` how many machines of ours were listed (None: not known),
    ``foreign`` the others, ``ready`` the models that answered a probe in this very pass, ``phases`` where each model
    is at its end, also when that could not be written down.
    """

    lines: list[str] = field(default_factory=list)
    error: LlmpodError | None = None
    remaining: int | None = None
    foreign: tuple[Instance, ...] = ()
    ready: set[str] = field(default_factory=set)
    phases: dict[str, Phase] = field(default_factory=dict)

    def say(self, line: str) -> None:
        if line not in self.lines:
            self.lines.append(line)

    def fail(self, error: LlmpodError) -> None:
        self.say(str(error))
        self.error = self.error or error
