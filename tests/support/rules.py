"""The house rules that a machine can judge, each a pure function from a source file to its violations.

Not style (ruff) and not types (mypy). Who may import whom is the table in tests/support/layers.py.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.support.layers import part_of
from tests.support.source import Source

MODULE_LINES = 300
FUNCTION_LINES = 50
POSITIONAL_PARAMETERS = 4
NESTING = 3
STARTERS = {"asyncio.create_subprocess_exec", "subprocess.run", "subprocess.Popen", "subprocess.check_output"}

Finding = tuple[int, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


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
    for line, module in source.imports():
        if _top(module) in {"llmpod", "manage_pod", "proxy_fastapi", "tests"} and not part.may_use(module):
            yield line, f"{source.module} may not import {module}"


def imports_of_libraries(source: Source) -> Iterator[Finding]:
    part = part_of(source.module)
    owned = {*(part.libraries if part else ()), "llmpod", "manage_pod", "proxy_fastapi", "tests"}
    for line, module in source.imports():
        if _top(module) not in sys.stdlib_module_names | owned:
            yield line, f"{source.module} does not own the library {_top(module)}"


def sync_parts(source: Source) -> Iterator[Finding]:
    part = part_of(source.module)
    for node in ast.walk(source.tree):
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
    for function in _functions(source.tree):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield function.lineno, f"{function.name} has {lines} lines, the ceiling is {FUNCTION_LINES}"


def positional_parameters(source: Source) -> Iterator[Finding]:
    methods = {
        id(item) for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef) for item in node.body
    }
    for function in _functions(source.tree):
        if source.is_test and _called_by_pytest(function):
            continue
        bound = id(function) in methods and "staticmethod" not in _decorators(function)
        count = len(function.args.posonlyargs) + len(function.args.args) - bound
        if count > POSITIONAL_PARAMETERS:
            limit = f"the ceiling is {POSITIONAL_PARAMETERS}: put a * before the rest"
            yield function.lineno, f"{function.name} has {count} positional parameters, {limit}"


def nesting(source: Source) -> Iterator[Finding]:
    for line, depth in _depths(source.tree, 0):
        if depth == NESTING + 1:
            yield (
                line,
                f"control flow {depth} deep, the ceiling is {NESTING}: return early or name the inside",
            )


# --- bans
def broad_except(source: Source) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        match node:
            case ast.ExceptHandler() if node.type is None or _is_broad(node.type):
                reason = range(node.lineno, node.body[0].lineno + 1)
            case ast.Call() if _called(node) == "suppress" and any(map(_is_broad, node.args)):
                reason = range(node.lineno, node.lineno + 1)
            case _:
                continue
        if not any(_says_why(source.comments.get(line, "")) for line in reason):
            yield node.lineno, "catches everything: name the exceptions, or say why beside it in a comment"


def environment(source: Source) -> Iterator[Finding]:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for line, name in _uses(source.tree, "os", names):
        yield (
            line,
            f"os.{name}: only llmpod/config.py reads the environment; take what you need as an argument",
        )


def unsafe_loading(source: Source) -> Iterator[Finding]:
    banned = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for line, module in source.imports():
        if _top(module) in banned:
            yield line, f"{module} runs code on loading: use JSON or a fixed binary format"


def shell(source: Source) -> Iterator[Finding]:
    for line, name in _uses(source.tree, "os", {"system", "popen"}):
        yield line, f"os.{name} is a shell: use an argv list"
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        if _called(node) in {"create_subprocess_shell", "getoutput", "getstatusoutput"}:
            yield node.lineno, f"{_called(node)} is a shell: use an argv list"
        for keyword in node.keywords:
            if keyword.arg == "shell" and not _is_false(keyword.value):
                yield node.lineno, "shell=True: use an argv list"


def environment_of_children(source: Source) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in STARTERS
            and "env" not in {k.arg for k in node.keywords}
        ):
            yield (
                node.lineno,
                "without env= a child sees all of our environment, keys included: name what it needs",
            )


def verification(source: Source) -> Iterator[Finding]:
    for line, name in _switched_off(source.tree):
        if name == "verify":
            yield line, "verify=False: trust the server's certificate by its CA instead"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"CERT_NONE", "_create_unverified_context"}:
            yield node.lineno, f"{node.attr}: trust the server's certificate by its CA instead"


def url_path(source: Source) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and node.attr == "path":
            inner = node.value
            if getattr(inner, "attr", getattr(inner, "id", "")) == "url":
                yield (
                    node.lineno,
                    ".url.path is built from the Host header, which a caller chooses: use scope['path']",
                )


# --- helpers
def _top(module: str) -> str:
    return module.partition(".")[0]


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _decorators(function: Function) -> set[str]:
    calls = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in calls}


def _called_by_pytest(function: Function) -> bool:
    return function.name.startswith("test_") or "fixture" in _decorators(function)


def _depths(node: ast.AST, depth: int) -> Iterator[tuple[int, int]]:
    """(line, depth) of every block of control flow. A function starts anew; an elif is as deep as its if."""
    for child in ast.iter_child_nodes(node):
        inner = depth
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            inner = 0
        elif isinstance(
            child, ast.If | ast.For | ast.AsyncFor | ast.While | ast.Try | ast.TryStar | ast.Match
        ):
            inner = depth if _is_elif(node, child) else depth + 1
            yield child.lineno, inner
        yield from _depths(child, inner)


def _is_elif(parent: ast.AST, child: ast.stmt) -> bool:
    return (
        isinstance(parent, ast.If)
        and isinstance(child, ast.If)
        and parent.orelse == [child]
        and child.col_offset == parent.col_offset
    )


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _switched_off(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every keyword argument and every attribute that is given a plain False."""
    for node in ast.walk(tree):
        match node:
            case ast.keyword(arg=str(name), value=value) if _is_false(value):
                yield node.value.lineno, name
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if _is_false(value):
                yield node.lineno, name


def _is_broad(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(_is_broad, node.elts))
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in {"Exception", "BaseException"}


def _says_why(comment: str) -> bool:
    """Whether words remain once the directives to tools are taken out of a comment."""
    words = re.sub(r"noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[\w, -]+\])?|pragma:\s*no cover", "", comment)
    return len(re.findall(r"[A-Za-z]{2,}", words)) >= 3


def _uses(tree: ast.AST, module: str, names: set[str]) -> Iterator[tuple[int, str]]:
    """Where members of a standard module are used, by whatever name the module or the member was imported."""
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    aliases = {alias.asname or alias.name for alias in imported if alias.name == module}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=name) if base in aliases and name in names:
                yield node.lineno, name
            case ast.ImportFrom(module=origin, names=members) if origin == module:
                yield from ((node.lineno, alias.name) for alias in members if alias.name in names)


# --- table
def _product(source: Source) -> bool:
    return source.is_product


def _may_not_read_environment(source: Source) -> bool:
    return source.is_product and not source.module.startswith(("llmpod.config", "llmpod.sim"))


def _may_not_share_its_environment(source: Source) -> bool:
    """A warden's environment was made for the server that it starts."""
    return source.is_product and source.module != "llmpod.backends.process_warden"


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
    Rule("child-environment", environment_of_children, _may_not_share_its_environment),
    Rule("verification", verification),
    Rule("url-path", url_path, _product),
)
