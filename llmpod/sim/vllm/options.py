"""What a fake vLLM can be told. Not the command line, which `__main__.py` reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VllmOptions:
    """How one fake server behaves. Lengths are tokens, times are seconds, 0 tokens a second means no limit."""

    model: str = "sim/tiny"
    served_name: str = ""
    """What clients call the model; empty: the model's own name. A name with "think" in it makes it reason."""
    api_key: str | None = None
    ignore_key: bool = False
    """Answers everybody although it has a key: the pod that a careful manager must not keep."""
    max_model_len: int = 8192
    max_num_seqs: int = 256
    load_seconds: float = 0.0
    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0
    auto_tools: bool = False
    """Whether tool_choice "auto" is allowed; vLLM wants --enable-auto-tool-choice for that."""
    embedding_size: int = 256

    @property
    def name(self) -> str:
        """The name under which the model is served."""
        return self.served_name or self.model
