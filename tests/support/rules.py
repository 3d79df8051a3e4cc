"""The house rules that a machine can judge, each a pure function from a source file to its violations.

Not style (ruff) and not types (mypy). Who may import whom is the table in tests/support/layers.py.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.layers import part_of
from tests.support.rules_secure import (
    Finding,
    comparison,
    environment_of_children,
    evaluation,
    redirects,
    shell,
    telling,
    unsafe_loading,
    url_path,
    verification,
)
from tests.support.source import Source
from tests.support.trees import (
    called,
    called_by_pytest,
    decorators,
    depths,
    functions,
    is_broad,
    says_why,
    top,
    uses,
)

MODULE_LINES = 300
FUNCTION_LINES = 50
POSITIONAL_PARAMETERS = 4
NESTING = 3


@dataclass(frozen=True)
class Rule:
    """One rule: what it is called, which files it judges, and its findings as (line, message)."""

    name: str
    check: Callable[[Source], Iterator[Finding]]
    applies: Callable[[Source], bool] = lambda _: True

    def violations(self, source: Source) -> list[str]:
        if not self.applies(source):
            return []
        return [
            f"{source.path}:{line}: [{self.name}] {message}" for line, message in sorted(self.check(source))
        ]


# --- layers
def imports_of_ours(source: Source) -> Iterator[Finding]:
    part = part_of(source.module)
    if part is None:
        yield 1, f"{source.module} has no row in tests/support/layers.py: decide what it may import"
        return
    for line, module in source.imports:
        if top(module) in {"llmpod", "manage_pod", "proxy_fastapi", "tests"} and not part.may_use(module):
            yield line, f"{source.module} may not import {module}"


def imports_of_libraries(source: Source) -> Iterator[Finding]:
    part = part_of(source.module)
    owned = {*(part.libraries if part else ()), "llmpod", "manage_pod", "proxy_fastapi", "tests"}
    for line, module in source.imports:
        if top(module) not in sys.stdlib_module_names | owned:
            yield line, f"{source.module} does not own the library {top(module)}"


def sync_parts(source: Source) -> Iterator[Finding]:
    part = part_of(source.module)
    for node in source.nodes:
        if part and part.sync and isinstance(node, ast.AsyncFunctionDef):
            yield (
                node.lineno,
                f"{node.name}: {source.module} belongs to a synchronous part, no async def here",
            )


# --- ceilings
def module_length(source: Source) -> Iterator[Finding]:
    lines = len(source.text.splitlines())
    if lines > MODULE_LINES:
        yield (
            lines,
            f"{lines} lines, the ceiling of a module is {MODULE_LINES}: split it by what changes together",
        )


def function_length(source: Source) -> Iterator[Finding]:
    for function in functions(source.nodes):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield function.lineno, f"{function.name} has {lines} lines, the ceiling is {FUNCTION_LINES}"


def positional_parameters(source: Source) -> Iterator[Finding]:
    methods = {id(item) for node in source.nodes if isinstance(node, ast.ClassDef) for item in node.body}
    for function in functions(source.nodes):
        if source.is_test and called_by_pytest(function):
            continue
        bound = id(function) in methods and "staticmethod" not in decorators(function)
        count = len(function.args.posonlyargs) + len(function.args.args) - bound
        if count > POSITIONAL_PARAMETERS:
            limit = f"the ceiling is {POSITIONAL_PARAMETERS}: put a * before the rest"
            yield function.lineno, f"{function.name} has {count} positional parameters, {limit}"


def nesting(source: Source) -> Iterator[Finding]:
    for line, depth in depths(source.tree):
        if depth == NESTING + 1:
            yield (
                line,
                f"control flow {depth} deep, the ceiling is {NESTING}: return early or name the inside",
            )


# --- bans
def broad_except(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        match node:
            case ast.ExceptHandler() if node.type is None or is_broad(node.type):
                reason = range(node.lineno, node.body[0].lineno + 1)
            case ast.Call() if called(node) == "suppress" and any(map(is_broad, node.args)):
                reason = range(node.lineno, node.lineno + 1)
            case _:
                continue
        if not any(says_why(source.comments.get(line, "")) for line in reason):
            yield node.lineno, "catches everything: name the exceptions, or say why beside it in a comment"


def environment(source: Source) -> Iterator[Finding]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for line, name in uses(source.nodes, "os", names):
        yield (
            line,
            f"os.{name}: only llmpod/config.py reads the environment; take what you need as an argument",
        )


# --- table
def _product(source: Source) -> bool:
    return source.is_product


def _real(source: Source) -> bool:
    """The fakes have no secrets, and show theirs."""
    return source.is_product and not source.module.startswith("llmpod.sim")


def _may_not_read_environment(source: Source) -> bool:
    return source.is_product and not source.module.startswith(("llmpod.config", "llmpod.sim"))


def _may_not_share_its_environment(source: Source) -> bool:
    """A warden's environment was made for what it starts."""
    return source.is_product and not source.module.endswith("_warden")


RULES = (
    Rule("layer", imports_of_ours, _product),
    Rule("library", imports_of_libraries, _product),
    Rule("sync", sync_parts, _product),
    Rule("module-length", module_length),
    Rule("function-length", function_length),
    Rule("positional-parameters", positional_parameters),
    Rule("nesting", nesting),
    Rule("broad-except", broad_except),
    Rule("environment", environment, _may_not_read_environment),
    Rule("unsafe-loading", unsafe_loading),
    Rule("shell", shell),
    Rule("evaluation", evaluation),
    Rule("child-environment", environment_of_children, _may_not_share_its_environment),
    Rule("verification", verification),
    Rule("comparison", comparison, _real),
    Rule("telling", telling, _real),
    Rule("redirects", redirects, _product),
    Rule("url-path", url_path, _product),
)
