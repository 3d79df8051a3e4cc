"""Not the manager: the OpenAI-compatible front. It answers, caches and forwards; it never buys anything."""
