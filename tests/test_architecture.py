"""The house rules hold for every file; and each rule can fail, on a sample that breaks it."""

import textwrap

import pytest

from tests.support.layers import PARTS
from tests.support.rules import RULES
from tests.support.source import Source, project_sources

MODULES = frozenset(
    {"llmpod.cache.key", "llmpod.lifecycle.share", "llmpod.lifecycle.want", "llmpod.backends.slurm"}
)
BY_NAME = {rule.name: rule for rule in RULES}


def sample(path: str, code: str) -> Source:
    return Source(path, textwrap.dedent(code).lstrip("\n"), MODULES)


def test_every_file_keeps_every_rule() -> None:
    """File by file, so that each is read and parsed once, and by one process. A violation names its rule."""
    violations, paths = [], set()
    for source in project_sources():
        paths.add(source.path)
        violations += [violation for rule in RULES for violation in rule.violations(source)]
    assert not violations, "\n" + "\n".join(violations)
    assert {"llmpod/__init__.py", "tests/test_architecture.py", "tests/support/rules.py"} <= paths, (
        "the tree was not found"
    )


def lines(count: int, line: str) -> str:
    return "\n".join([line] * count)


BAD = [
    ("layer", "llmpod/backends/process.py", "from llmpod.lifecycle import want", 1),
    ("layer", "llmpod/backends/process.py", "from llmpod.backends import slurm", 1),
    ("layer", "llmpod/backends/process.py", "from . import slurm", 1),
    ("layer", "llmpod/backends/runpod_pod.py", "import llmpod.backends.docker", 1),
    ("layer", "llmpod/lifecycle/decide.py", "from llmpod.backends.slurm import Slurm", 1),
    ("layer", "llmpod/proxy/keeper.py", "from llmpod.lifecycle import want", 1),
    ("layer", "llmpod/proxy/keeper.py", "def f() -> None:\n    import llmpod.backends", 2),
    ("layer", "llmpod/proxy/keeper.py", "import importlib\nimportlib.import_module('llmpod.backends')", 2),
    ("layer", "llmpod/cache/disk.py", "from llmpod.config import Config", 1),
    ("layer", "llmpod/observe/logs.py", "from llmpod.model import Phase", 1),
    ("layer", "llmpod/client/__init__.py", "from llmpod.config import Config", 1),
    ("layer", "llmpod/cli.py", "from llmpod.cache.key import key_of", 1),
    ("layer", "llmpod/cli/commands.py", "from llmpod.proxy.app import build", 1),
    ("layer", "llmpod/sim/api.py", "from llmpod.errors import Declined", 1),
    ("layer", "llmpod/errors.py", "from llmpod.model import Phase", 1),
    ("layer", "llmpod/proxy/app.py", "from tests.support.net import free_port", 1),
    ("layer", "llmpod/newcomer.py", "", 1),
    ("library", "llmpod/model.py", "import pydantic", 1),
    ("library", "llmpod/lifecycle/decide.py", "import requests", 1),
    ("library", "llmpod/backends/docker.py", "import httpx", 1),
    ("library", "llmpod/proxy/app.py", "from pydantic import BaseModel", 1),
    ("library", "llmpod/cache/disk.py", "import httptools", 1),
    ("library", "llmpod/sim/api.py", "import httpx", 1),
    ("sync", "llmpod/lifecycle/reconcile.py", "async def pass_() -> None: ...", 1),
    ("sync", "llmpod/cli/main.py", "class A:\n    async def f(self) -> None: ...", 2),
    ("module-length", "llmpod/proxy/app.py", lines(301, "x = 1"), 301),
    ("function-length", "llmpod/proxy/app.py", "def f() -> None:\n" + lines(50, "    x = 1"), 1),
    ("positional-parameters", "llmpod/model.py", "def f(a, b, c, d, e): ...", 1),
    ("positional-parameters", "llmpod/model.py", "class A:\n    def f(self, a, b, /, c, d, e): ...", 2),
    (
        "positional-parameters",
        "llmpod/model.py",
        "class A:\n    @staticmethod\n    def f(a, b, c, d, e): ...",
        3,
    ),
    ("positional-parameters", "tests/test_x.py", "def helper(a, b, c, d, e): ...", 1),
    ("nesting", "llmpod/model.py", "if a:\n for b in c:\n  while d:\n   try: ...\n   finally: ...", 4),
    (
        "nesting",
        "llmpod/model.py",
        "if a: ...\nelse:\n for b in c:\n  match d:\n   case 1:\n    if e: ...",
        6,
    ),
    ("broad-except", "llmpod/model.py", "try: ...\nexcept Exception: ...", 2),
    ("broad-except", "llmpod/model.py", "try: ...\nexcept:  # noqa: E722\n    ...", 2),
    ("broad-except", "llmpod/model.py", "try: ...\nexcept (OSError, BaseException) as e: ...", 2),
    ("broad-except", "llmpod/model.py", "with suppress(Exception): ...", 1),
    ("environment", "llmpod/cli.py", "import os\nos.environ['A']", 2),
    ("environment", "llmpod/proxy/app.py", "import os as o\no.getenv('A')", 2),
    ("environment", "manage_pod.py", "from os import environ", 1),
    ("unsafe-loading", "llmpod/cache/disk.py", "import pickle", 1),
    ("unsafe-loading", "tests/test_x.py", "from marshal import loads", 1),
    ("shell", "llmpod/backends/slurm.py", "run('x', shell=True)", 1),
    ("shell", "llmpod/backends/slurm.py", "run('x', shell=flag)", 1),
    ("shell", "llmpod/backends/slurm.py", "import os\nos.system('x')", 2),
    ("shell", "llmpod/backends/slurm.py", "asyncio.create_subprocess_shell('x')", 1),
    ("evaluation", "llmpod/config.py", "eval('1')", 1),
    ("evaluation", "llmpod/config.py", "if a:\n    exec(text)", 2),
    ("evaluation", "tests/test_x.py", "import yaml", 1),
    ("comparison", "llmpod/proxy/keyring.py", "if given == self.api_key: ...", 1),
    ("comparison", "llmpod/proxy/keyring.py", "same = sha256(a).hexdigest() != known", 1),
    ("comparison", "llmpod/cache/entry.py", "if (mac == made): ...", 1),
    ("telling", "llmpod/cli/keys.py", "print(f'made {secret}')", 1),
    ("telling", "llmpod/proxy/gate.py", "log.info('asked', key=settings.api_key)", 1),
    ("telling", "llmpod/backends/runpod_api.py", "log.debug('x', headers={'a': 'Bearer ' + self._token})", 1),
    ("redirects", "llmpod/lifecycle/probe.py", "get(url, allow_redirects=True)", 1),
    ("redirects", "llmpod/proxy/app.py", "AsyncClient(follow_redirects=follow)", 1),
    ("child-environment", "llmpod/cli/tls.py", "subprocess.run(['openssl'])", 1),
    ("child-environment", "llmpod/cli/tls.py", "subprocess.Popen(['openssl'], cwd='/')", 1),
    ("child-environment", "llmpod/sim/scripted.py", "asyncio.create_subprocess_exec('sh')", 1),
    ("verification", "llmpod/lifecycle/probe.py", "get(url, verify=False)", 1),
    ("verification", "llmpod/lifecycle/probe.py", "session.verify = False", 1),
    ("verification", "llmpod/proxy/upstream.py", "context.verify_mode = ssl.CERT_NONE", 1),
    ("url-path", "llmpod/proxy/guard.py", "path = request.url.path", 1),
    ("url-path", "llmpod/proxy/guard.py", "path = url.path", 1),
]


@pytest.mark.parametrize(("name", "path", "code", "line"), BAD)
def test_a_rule_can_fail(name: str, path: str, code: str, line: int) -> None:
    violations = BY_NAME[name].violations(sample(path, code))
    assert [violation.startswith(f"{path}:{line}: [{name}] ") for violation in violations] == [True]


def test_every_rule_has_a_sample_that_breaks_it() -> None:
    assert {name for name, *_ in BAD} == set(BY_NAME)


GOOD = [
    (
        "llmpod/backends/__init__.py",
        "from llmpod.backends.slurm import Slurm\nfrom llmpod.config import Config",
    ),
    ("llmpod/backends/runpod_pod.py", "import requests\nfrom llmpod.backends.runpod_api import Api"),
    ("llmpod/lifecycle/probe.py", "import requests\nfrom llmpod.backends import Backend"),
    (
        "llmpod/proxy/keeper.py",
        "from llmpod.lifecycle import share\nfrom llmpod.lifecycle.share import Follower",
    ),
    ("llmpod/client/routes.py", "from fastapi import APIRouter"),
    (
        "llmpod/cli/main.py",
        "from llmpod import __version__\nfrom rich import print\nfrom llmpod.sim.launch import X",
    ),
    ("llmpod/config.py", "import os\nfrom pydantic import BaseModel\nos.environ"),
    ("llmpod/sim/pods.py", "import os\nos.environ"),
    ("tests/test_x.py", "import os\nimport openai\nos.environ\nasync def test(a, b, c): ..."),
    (
        "tests/test_x.py",
        "@pytest.fixture()\ndef world(a, b, c, d, e, f): ...\ndef test_it(a, b, c, d, e): ...",
    ),
    ("llmpod/model.py", "class A:\n    def f(self, a, b, c, d, *, e, f): ..."),
    ("llmpod/model.py", lines(300, "x = 1")),
    ("llmpod/model.py", "def f() -> None:\n" + lines(49, "    x = 1")),
    ("llmpod/model.py", "if a: ...\nelif b: ...\nelif c: ...\nelif d:\n for e in f:\n  while g: ..."),
    ("llmpod/model.py", "if a:\n if b:\n  if c:\n   def f() -> None:\n    if d: ..."),
    ("llmpod/model.py", "try: ...\nexcept Exception:  # one bad hook must not stop the others\n    log()"),
    (
        "llmpod/model.py",
        "try: ...\nexcept Exception:\n    # one bad hook must not stop the others\n    log()",
    ),
    ("llmpod/cli/tls.py", "subprocess.run(['openssl'], env={})"),
    ("llmpod/model.py", "run(['x'], shell=False)\nget(url, verify=True)"),
    # a certificate that is pinned by itself may bear any name; it is still verified
    (
        "llmpod/lifecycle/probe.py",
        "context = ssl.create_default_context(cafile=a)\ncontext.check_hostname = False",
    ),
    ("llmpod/proxy/guard.py", "path = scope['path']\nfolder = config.path"),
    ("llmpod/proxy/keyring.py", "if compare_digest(given, api_key): ...\nif api_key is None: ..."),
    ("llmpod/proxy/keyring.py", "if token == known: ...  # an id that /health shows to everybody"),
    ("llmpod/cli/keys.py", "print(len(tokens_used), max_tokens_left, monkey)"),
    ("llmpod/cli/keys.py", "re.compile('x')\nget(url, allow_redirects=False)"),
]


@pytest.mark.parametrize(("path", "code"), GOOD)
def test_good_code_passes(path: str, code: str) -> None:
    source = sample(path, code)
    assert [violation for rule in RULES for violation in rule.violations(source)] == []


def test_only_the_simulator_is_free_of_our_package() -> None:
    """The fakes must not share a mistake with what they test, so not even the version is taken from us."""
    assert [pattern for pattern, part in PARTS.items() if part.may_use("llmpod.sim.api")] == [
        "llmpod.sim*",
        "llmpod.cli*",
    ]
    assert not PARTS["llmpod.sim*"].may_use("llmpod")
