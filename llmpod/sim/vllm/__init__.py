"""Not a model: a server that speaks like vLLM 0.32 and makes its text up, deterministically, from the request.

`llmpod.sim.vllm.app.vllm_app` is the ASGI app, `python -m llmpod.sim.vllm` the program, and `options.py` what
both can be told. What it imitates was recorded from a real vLLM 0.32.0.
"""
