"""Not a rule: questions about syntax trees that the rules ask."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef
_ANEW = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
_FLOW = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.Match)


def top(module: str) -> str:
    return module.partition(".")[0]


def functions(nodes: Iterable[ast.AST]) -> Iterator[Function]:
    return (node for node in nodes if isinstance(node, Function))


def decorators(function: Function) -> set[str]:
    calls = (node.func if isinstance(node, ast.Call) else node for node in function.decorator_list)
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in calls}


def called_by_pytest(function: Function) -> bool:
    return function.name.startswith("test_") or "fixture" in decorators(function)


def depths(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """(line, depth) of every block of control flow. A function starts anew; an elif is as deep as its if."""
    waiting = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        for child in ast.iter_child_nodes(node):
            inner = depth
            if isinstance(child, _ANEW):
                inner = 0
            elif isinstance(child, _FLOW):
                inner = depth if is_elif(node, child) else depth + 1
                yield child.lineno, inner
            waiting.append((child, inner))


def is_elif(parent: ast.AST, child: ast.stmt) -> bool:
    return (
        isinstance(parent, ast.If)
        and isinstance(child, ast.If)
        and parent.orelse == [child]
        and child.col_offset == parent.col_offset
    )


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def switched_off(nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Every keyword argument and every attribute that is given a plain False."""
    for node in nodes:
        match node:
            case ast.keyword(arg=str(name), value=value) if is_false(value):
                yield node.value.lineno, name
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value) if is_false(value):
                yield node.lineno, name


def is_broad(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(is_broad, node.elts))
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in {"Exception", "BaseException"}


def says_why(comment: str) -> bool:
    """Whether words remain once the directives to tools are taken out of a comment."""
    words = re.sub(r"noqa(:\s*[A-Z0-9, ]+)?|type:\s*ignore(\[[\w, -]+\])?|pragma:\s*no cover", "", comment)
    return len(re.findall(r"[A-Za-z]{2,}", words)) >= 3


def uses(nodes: Sequence[ast.AST], module: str, names: set[str]) -> Iterator[tuple[int, str]]:
    """Where members of a standard module are used, by whatever name the module or the member was imported."""
    imported = [alias for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    aliases = {alias.asname or alias.name for alias in imported if alias.name == module}
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id=base), attr=name) if base in aliases and name in names:
                yield node.lineno, name
            case ast.ImportFrom(module=origin, names=members) if origin == module:
                yield from ((node.lineno, alias.name) for alias in members if alias.name in names)
