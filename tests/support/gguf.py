"""Not a library for GGUF: writes one tiny Llama with random weights, for a real llama.cpp. Standard library only.

Source of the format: ggml's docs/gguf.md, version 3. Seeded: the same bytes each time. Its tokens are the 256 bytes,
spelled as GPT-2's byte-level tokenizer does, three marks and one merge (the reader wants a list that is not empty).
"""

import random
import struct
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path

_WIDTH, _HIDDEN, _BLOCKS, _HEADS, _CONTEXT = 32, 64, 1, 2, 65536
_ALIGN = 32
_UINT32, _FLOAT32, _BOOL, _STRING, _ARRAY, _INT32 = 4, 6, 7, 8, 9, 5
_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
_MARKS = ("<s>", "</s>", "<pad>")
_CONTROL, _NORMAL = 3, 1

Value = int | float | str | bool | Sequence[str] | Sequence[int]


def write_tiny_llama(path: Path) -> None:
    """A model of about 20,000 parameters that answers nonsense, quickly."""
    tokens = [*_MARKS, *_byte_letters(), "he"]
    facts: Mapping[str, Value] = {
        "general.architecture": "llama",
        "general.name": "tiny-random",
        "llama.context_length": _CONTEXT,
        "llama.embedding_length": _WIDTH,
        "llama.block_count": _BLOCKS,
        "llama.feed_forward_length": _HIDDEN,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _WIDTH // _HEADS,
        "llama.vocab_size": len(tokens),
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [_CONTROL if t in _MARKS else _NORMAL for t in tokens],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": _CHAT,
    }
    tensors = _shapes(len(tokens))
    chance = random.Random(0)
    data, offsets = bytearray(), list[int]()
    for name, shape in tensors.items():
        offsets.append(len(data))
        data += _weights(chance, shape, ones=name.endswith("norm.weight"))
        data += bytes(-len(data) % _ALIGN)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(facts))
    head += b"".join(_text(key) + _value(value) for key, value in facts.items())
    for (name, shape), offset in zip(tensors.items(), offsets, strict=True):
        sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += _text(name) + sizes + struct.pack("<IQ", 0, offset)  # 0: GGML_TYPE_F32
    path.write_bytes(head + bytes(-len(head) % _ALIGN) + data)


def _byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for 256 and up."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(spare)) for byte in range(256)]


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    """The fastest dimension first, as ggml counts them."""
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (_WIDTH, vocabulary)}
    for block in range(_BLOCKS):
        at = f"blk.{block}."
        shapes |= {f"{at}{norm}_norm.weight": (_WIDTH,) for norm in ("attn", "ffn")}
        shapes |= {f"{at}attn_{part}.weight": (_WIDTH, _WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"{at}ffn_{part}.weight": (_WIDTH, _HIDDEN) for part in ("gate", "up")}
        shapes |= {f"{at}ffn_down.weight": (_HIDDEN, _WIDTH)}
    return shapes | {"output_norm.weight": (_WIDTH,), "output.weight": (_WIDTH, vocabulary)}


def _weights(chance: random.Random, shape: tuple[int, ...], *, ones: bool) -> bytes:
    count = shape[0] * (shape[1] if len(shape) > 1 else 1)
    return array("f", (1.0 if ones else chance.gauss(0, 0.05) for _ in range(count))).tobytes()


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _value(value: Value) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    kind = _STRING if isinstance(value[0], str) else _INT32
    items = b"".join(_text(item) if isinstance(item, str) else struct.pack("<i", item) for item in value)
    return struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
