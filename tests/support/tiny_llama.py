"""Not imported by anything: makes a tiny Llama with random weights, as Hugging Face's files, in a given directory.

Run by the Python that has torch and transformers (scripts/components --all), never by the project's own. Seeded: the
same weights each time. Its tokens are two marks and the 256 bytes; its heads are 32 wide, the least that vLLM's
attention on CPU takes; its configuration names no end of text, so an answer is as long as was asked for.
"""

import importlib
import sys

_CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
_MARKS = ("<s>", "</s>")
_CONTEXT = 4096


def main(directory: str) -> None:
    """Write model and tokenizer."""
    torch, tokenizers, transformers = map(importlib.import_module, ("torch", "tokenizers", "transformers"))
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: number for number, word in enumerate([*_MARKS, *letters])}
    text = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    text.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = tokenizers.decoders.ByteLevel()
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_object=text, bos_token="<s>", pad_token="</s>")
    tokens.chat_template = _CHAT
    tokens.save_pretrained(directory)
    torch.manual_seed(0)
    shape = transformers.LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=1,
    )
    transformers.LlamaForCausalLM(shape).save_pretrained(directory)


if __name__ == "__main__":
    main(sys.argv[1])
