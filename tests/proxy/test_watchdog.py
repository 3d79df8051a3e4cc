"""A loop that hangs ends its process, with all stacks on standard error; one that is busy or stopped does not."""

import signal

from tests.support.process import PYTHON, run, running

PROGRAM = """
import asyncio, sys, time
from llmpod.proxy.watchdog import Watchdog

async def main(hang):
    dog = Watchdog(0.5)
    dog.start()
    print("up", flush=True)
    for _ in range(100):
        await asyncio.sleep(0.02)
        dog.beat()
    if hang:
        def stuck_here():
            time.sleep(30)
        stuck_here()
    dog.close()
    print("ended well", flush=True)

asyncio.run(main(sys.argv[1] == "hang"))
"""


def test_a_hung_loop_ends_the_process(env: dict[str, str]) -> None:
    ended = run([PYTHON, "-c", PROGRAM, "hang"], env=env)
    assert ended.code == 70
    assert "stuck_here" in ended.err
    assert '"hung"' in ended.err


def test_a_process_that_was_stopped_goes_on(env: dict[str, str]) -> None:
    with running([PYTHON, "-c", PROGRAM, "well"], env=env) as process:
        process.says("up")
        process.signal(signal.SIGSTOP)
        try:
            run(["sleep", "1.2"], env=env)
        finally:
            process.signal(signal.SIGCONT)
        process.says("ended well")
        assert process.wait() == 0
