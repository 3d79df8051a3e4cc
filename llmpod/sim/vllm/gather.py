"""Reads a running answer to its end, for those who want it whole. Not a form of its own."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from llmpod.sim.vllm.engine import Said
from llmpod.sim.vllm.script import Kind, Step


@dataclass
class Choice:
    """All that was said in one choice."""

    steps: list[Step] = field(default_factory=list)
    finish: str = "abort"
    stop_reason: str | None = None

    def add(self, news: Said) -> None:
        """Takes in what was said next."""
        if news.step:
            self.steps.append(news.step)
        if news.finish:
            self.finish, self.stop_reason = news.finish, news.stop_reason

    def text(self, kind: Kind = "content", tool: int = 0) -> str:
        return "".join(step.text for step in self.steps if (step.kind, step.tool) == (kind, tool))

    @property
    def tools(self) -> list[int]:
        """The calls that were begun."""
        return list(dict.fromkeys(step.tool for step in self.steps if step.kind == "tool"))


async def gathered(said: AsyncGenerator[Said, None], choices: int) -> list[Choice]:
    """The choices of an answer, in order, once it has ended."""
    found = [Choice() for _ in range(choices)]
    async with aclosing(said) as running:
        async for news in running:
            found[news.choice].add(news)
    return found
