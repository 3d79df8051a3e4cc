"""The project's own source as the rules see it: parsed, with comments by line. Runs none of it."""

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """One Python file: its path inside the repository, its text, and the names of all modules of ours."""

    path: str
    text: str
    modules: frozenset[str] = frozenset()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree: eighteen rules look at them, one walk finds them."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def module(self) -> str:
        return module_name(self.path)

    @cached_property
    def comments(self) -> dict[int, str]:
        """Comment text without its `#`, by line number."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return {
            token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
        }

    @property
    def is_product(self) -> bool:
        return not self.path.startswith(("tests/", "scripts/"))

    @property
    def is_test(self) -> bool:
        return self.path.startswith("tests/")

    @cached_property
    def imports(self) -> tuple[tuple[int, str], ...]:
        """Every imported module with its line; `from a import b` is `a.b` where that is a module of ours."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[tuple[int, str]]:
        for node in self.nodes:
            match node:
                case ast.Import(names=names):
                    yield from ((node.lineno, alias.name) for alias in names)
                case ast.ImportFrom(names=names):
                    base = self._absolute(node)
                    yield from ((node.lineno, self._member(base, alias.name)) for alias in names)
                case ast.Call(args=[ast.Constant(value=str(name)), *_]) if _is_dynamic_import(node):
                    yield node.lineno, name

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.module.split(".")
        if not self.path.endswith("/__init__.py"):
            package.pop()
        base = package[: len(package) - (node.level - 1)]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _member(self, base: str, name: str) -> str:
        member = f"{base}.{name}"
        return member if member in self.modules else base


def module_name(path: str) -> str:
    """`llmpod/cache/__init__.py` -> `llmpod.cache`."""
    parts = list(PurePosixPath(path).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def project_sources(root: Path = ROOT) -> Iterator[Source]:
    """Every Python file that is ours, tracked or not, in a stable order; read when its turn comes."""
    found = [*root.glob("*.py")]
    for folder in ("llmpod", "scripts", "tests"):
        found += root.glob(f"{folder}/**/*.py")
    paths = sorted(path.relative_to(root).as_posix() for path in found)
    modules = frozenset(map(module_name, paths))
    return (Source(path, (root / path).read_text(encoding="utf-8"), modules) for path in paths)


def _is_dynamic_import(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in {"import_module", "__import__"}
