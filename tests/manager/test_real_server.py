"""The backend `process` with real model servers on CPU: llama.cpp, and `transformers serve` where it is in PATH.

Their models have random weights and are made on the spot. scripts/components installs the first of the two servers.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.support import llama
from tests.support.desk import MODEL, Desk
from tests.support.net import listens
from tests.support.wait import eventually

MAKE = """
import sys
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
letters = sorted(pre_tokenizers.ByteLevel.alphabet())
words = Tokenizer(models.BPE(vocab={w: n for n, w in enumerate(["<s>", "</s>", *letters])}, merges=[]))
words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
tokens = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>")
tokens.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}"
tokens.save_pretrained(sys.argv[1])
torch.manual_seed(0)
shape = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2)
ids = dict(bos_token_id=0, eos_token_id=1, pad_token_id=1)
config = LlamaConfig(vocab_size=len(tokens), num_key_value_heads=2, max_position_embeddings=512, **shape, **ids)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""


@pytest.fixture
def command() -> str:
    found = shutil.which("transformers")
    if found is None:
        pytest.skip("`transformers` is not in PATH")
    return found


@pytest.fixture
def desk(state_dir: Path, env: dict[str, str]) -> Iterator[Desk]:
    made = Desk(state_dir, env)
    yield made
    made.manage("--shutdown").expect()


@pytest.mark.component
@pytest.mark.skipif(bool(llama.why_not()), reason=llama.why_not())
def test_llama_cpp_answers_through_the_proxy_in_both_forms(desk: Desk) -> None:
    """With its own key, which a stranger lacks; what is stored of one form serves the other."""
    desk.configure(
        "process", {"command": llama.command(desk.directory), "require_key": True, "stop_seconds": 5}
    )
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    whole = eventually(desk.ask, within=30, ignoring=requests.RequestException)
    assert whole["usage"]["completion_tokens"] == 8
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 8, "stream": True}
    url = f"http://127.0.0.1:{desk.port}/v1/chat/completions"
    streamed = requests.post(url, json=body, timeout=30)
    assert streamed.headers["x-cache"].startswith("HIT")
    assert streamed.text.endswith("data: [DONE]\n\n")
    address = str(desk.state()["base_url"])
    assert requests.get(f"{address}/v1/models", timeout=10).status_code == 401
    desk.manage("--shutdown").expect()
    assert not listens(int(address.rpartition(":")[2]))


@pytest.mark.component
@pytest.mark.skipif(bool(llama.why_not()), reason=llama.why_not())
def test_llama_cpp_that_dies_is_started_again(desk: Desk) -> None:
    desk.configure("process", {"command": llama.command(desk.directory), "stop_seconds": 5})
    desk.passes_until("ready")
    before = desk.state()["name"]
    for server in [process for process in desk.servers() if "llama_server" in process.command]:
        server.kill()
    eventually(lambda: desk.passes_until("ready")["name"] != before, within=60)


@pytest.mark.component
@pytest.mark.timeout(300)
def test_transformers_serve_answers_through_the_proxy(command: str, desk: Desk, tmp_path: Path) -> None:
    model, home = tmp_path / "model", tmp_path / "hf"
    (home / "hub").mkdir(parents=True)
    python = Path(command).parent / "python"
    subprocess.run([python, "-c", MAKE, model], check=True, capture_output=True, timeout=180)
    settings = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    argv = [command, "serve", str(model), "--device", "cpu"]
    section = {"command": argv, "env": settings, "stop_seconds": 10}
    desk.configure("process", section, served_model_name=str(model))
    desk.manage().expect()
    desk.passes_until("ready")
    eventually(lambda: listens(desk.port), within=20)
    answer = eventually(lambda: desk.ask(str(model)), within=60, ignoring=requests.RequestException)
    assert answer["choices"][0]["message"]["role"] == "assistant"
