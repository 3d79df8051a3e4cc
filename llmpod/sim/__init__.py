"""Not a test double that is patched in: a fake RunPod v2 API with fake vLLM pods, on real loopback sockets.

It is a program of its own (`python -m llmpod.sim`), plays the `demo` backend, and is the counterpart of the tests.
It imports nothing of ours, so it cannot share a mistake with what it stands against. API and proxy host stand on a
small HTTP server of their own (`wire.py`): a fake that has to cut, stall, reset and lie on the wire must own the wire.
"""
