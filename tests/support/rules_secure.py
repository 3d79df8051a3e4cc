"""Not all house rules: those about what an attacker could use. Each a pure function from a file to its violations.

A name that only sounds like a secret is excused by saying in a comment on its line what it is.
"""

import ast
import re
from collections.abc import Iterator

from tests.support.source import Source
from tests.support.trees import called, is_false, says_why, switched_off, top, uses

Finding = tuple[int, str]
_SECRET = re.compile(
    r"(?:^|_)(?:secret|password|token|api_?key|private_key|credential|mac|hmac|signature)s?$", re.IGNORECASE
)
_TELLS = {"print", "say", "write", "debug", "info", "warning", "error", "exception", "critical"}
STARTERS = {"asyncio.create_subprocess_exec", "subprocess.run", "subprocess.Popen", "subprocess.check_output"}


def unsafe_loading(source: Source) -> Iterator[Finding]:
    banned = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for line, module in source.imports:
        if top(module) in banned:
            yield line, f"{module} runs code on loading: use JSON or a fixed binary format"


def shell(source: Source) -> Iterator[Finding]:
    for line, name in uses(source.nodes, "os", {"system", "popen"}):
        yield line, f"os.{name} is a shell: use an argv list"
    for node in source.nodes:
        if not isinstance(node, ast.Call):
            continue
        if called(node) in {"create_subprocess_shell", "getoutput", "getstatusoutput"}:
            yield node.lineno, f"{called(node)} is a shell: use an argv list"
        for keyword in node.keywords:
            if keyword.arg == "shell" and not is_false(keyword.value):
                yield node.lineno, "shell=True: use an argv list"


def verification(source: Source) -> Iterator[Finding]:
    for line, name in switched_off(source.nodes):
        if name == "verify":
            yield line, "verify=False: trust the server's certificate by its CA instead"
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr in {"CERT_NONE", "_create_unverified_context"}:
            yield node.lineno, f"{node.attr}: trust the server's certificate by its CA instead"


def environment_of_children(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        if (
            isinstance(node, ast.Call)
            and ast.unparse(node.func) in STARTERS
            and "env" not in {k.arg for k in node.keywords}
        ):
            yield (
                node.lineno,
                "without env= a child sees all of our environment, keys included: name what it needs",
            )


def url_path(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        if isinstance(node, ast.Attribute) and node.attr == "path":
            inner = node.value
            if getattr(inner, "attr", getattr(inner, "id", "")) == "url":
                yield (
                    node.lineno,
                    ".url.path is built from the Host header, which a caller chooses: use scope['path']",
                )


def evaluation(source: Source) -> Iterator[Finding]:
    """Text that becomes code. YAML belongs here: its loaders build objects, and JSON does what we need."""
    for node in source.nodes:
        match node:
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                yield node.lineno, f"{name} runs text as code: use a table or json"
    for line, module in source.imports:
        if top(module) in {"yaml", "ruamel", "code", "codeop"}:
            yield line, f"{module} makes objects or code of text: use json"


def comparison(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        if not isinstance(node, ast.Compare) or not any(
            isinstance(op, ast.Eq | ast.NotEq) for op in node.ops
        ):
            continue
        sides = [node.left, *node.comparators]
        if any(map(_is_secret, sides)) and not says_why(source.comments.get(node.lineno, "")):
            yield node.lineno, "tells by its duration where two secrets differ: use hmac.compare_digest"


def telling(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        if not isinstance(node, ast.Call) or called(node) not in _TELLS:
            continue
        inside = [part for given in (*node.args, *node.keywords) for part in ast.walk(given)]
        named = sorted({name for part in inside if _SECRET.search(name := _name(part))})
        if named and not says_why(source.comments.get(node.lineno, "")):
            yield node.lineno, f"tells {', '.join(named)}: a secret is neither printed nor logged"


def redirects(source: Source) -> Iterator[Finding]:
    for node in source.nodes:
        match node:
            case ast.keyword(arg="allow_redirects" | "follow_redirects" as name) if not is_false(node.value):
                yield node.value.lineno, f"{name}: a server could send our credential anywhere"


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _is_secret(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return called(node) in {"digest", "hexdigest"}
    return _SECRET.search(_name(node)) is not None
