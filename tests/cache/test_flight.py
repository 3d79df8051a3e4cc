import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from llmpod.cache import Flight, Flights, Listener
from llmpod.errors import Overloaded, UpstreamInvalid, UpstreamUnreachable
from tests.cache.helpers import digest, until

KEY = digest(0)


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


async def collect(listener: Listener, *, pause: Callable[[], Awaitable[None]] | None = None) -> bytes:
    body = b""
    with listener:
        async for chunk in listener:
            body += chunk
            if pause:
                await pause()
    return body


def joined(flights: Flights, key: bytes = KEY) -> tuple[Flight, bool, Listener]:
    flight, leads = flights.lead_or_join(key)
    return flight, leads, flight.follow()


def test_one_leads_and_the_others_get_the_same_from_the_first_byte_on() -> None:
    async def test() -> None:
        flights = Flights()
        flight, leads, first = joined(flights)
        assert leads
        readers = [asyncio.create_task(collect(first))]
        flight.start(200, ((b"content-type", b"text/event-stream"),))
        for number in range(50):
            flight.append(b"<%d>" % number)
            same, leads, listener = joined(flights)
            assert (same, leads) == (flight, False)
            slow = number % 3 == 0
            readers.append(
                asyncio.create_task(collect(listener, pause=(lambda: asyncio.sleep(0)) if slow else None))
            )
            await asyncio.sleep(0)
        assert (await flight.head()).status == 200
        flight.finish()
        whole = b"".join(b"<%d>" % number for number in range(50))
        assert await asyncio.gather(*readers) == [whole] * 51
        assert flight.body() == whole
        assert len(flights) == 0

    run(test)


def test_after_the_end_a_new_flight_begins() -> None:
    async def test() -> None:
        flights = Flights()
        flight, _, _ = joined(flights)
        flight.finish()
        other, leads = flights.lead_or_join(KEY)
        assert leads
        assert other is not flight
        flight.fail(UpstreamInvalid("late"))
        assert len(flights) == 1, "the end of an old flight does not end the new one"

    run(test)


def test_other_questions_fly_by_themselves() -> None:
    async def test() -> None:
        flights = Flights()
        assert joined(flights)[0] is not joined(flights, digest(1))[0]
        assert len(flights) == 2

    run(test)


def test_a_failure_before_the_first_byte_reaches_everybody() -> None:
    async def test() -> None:
        flights = Flights()
        flight, _, one = joined(flights)
        _, _, two = joined(flights)
        heads = [asyncio.create_task(flight.head()) for _ in range(2)]
        bodies = [asyncio.create_task(collect(listener)) for listener in (one, two)]
        await asyncio.sleep(0)
        assert not flight.started
        flight.fail(UpstreamUnreachable("gone"))
        for task in (*heads, *bodies):
            with pytest.raises(UpstreamUnreachable, match="gone"):
                await task
        assert flights.lead_or_join(KEY)[1], "whoever asks again leads"

    run(test)


def test_a_failure_in_the_middle_comes_after_the_bytes_that_came() -> None:
    async def test() -> None:
        flight, _, listener = joined(Flights())
        flight.start(200)
        flight.append(b"half")
        flight.fail(UpstreamInvalid("cut"))
        got = [await anext(listener)]
        with pytest.raises(UpstreamInvalid, match="cut"):
            await anext(listener)
        assert got == [b"half"]
        assert flight.listeners == 0

    run(test)


def test_whoever_leaves_takes_nothing_with_him() -> None:
    async def test() -> None:
        flight, _, first = joined(Flights())
        second, third = flight.follow(), flight.follow()
        leaving = asyncio.create_task(collect(first))
        staying = asyncio.create_task(collect(second))
        heads = [asyncio.create_task(flight.head()) for _ in range(2)]
        await asyncio.sleep(0)
        for task in (leaving, heads[0]):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert flight.listeners == 2
        assert not flight.abandoned.is_set()
        third.close()
        flight.start(200)
        flight.append(b"x")
        flight.finish()
        assert (await staying, (await heads[1]).status) == (b"x", 200)

    run(test)


def test_when_the_last_one_has_left_the_task_that_fetches_hears_of_it() -> None:
    async def test() -> None:
        flights = Flights()
        flight, _, one = joined(flights)
        _, _, two = joined(flights)
        flight.append(b"x")
        waiting = asyncio.create_task(flight.abandoned.wait())
        one.close()
        one.close()
        await asyncio.sleep(0)
        assert not waiting.done()
        two.close()
        await waiting
        three = flight.follow()
        assert not flight.abandoned.is_set()
        assert not flight.give_up(), "somebody came back in time"
        three.close()
        assert flight.give_up()
        assert flights.lead_or_join(KEY)[1]

    run(test)


def test_giving_up_after_the_end_changes_nothing() -> None:
    async def test() -> None:
        flight, _, listener = joined(Flights())
        flight.append(b"x")
        flight.finish()
        assert await collect(listener) == b"x"
        assert flight.give_up()
        assert (flight.error, flight.body()) == (None, b"x")

    run(test)


def test_closing_ends_an_iteration_that_waits() -> None:
    async def test() -> None:
        flight, _, listener = joined(Flights())
        reading = asyncio.create_task(collect(listener))
        await asyncio.sleep(0)
        listener.close()
        assert await reading == b""
        assert flight.abandoned.is_set()

    run(test)


def test_a_body_beyond_the_buffer_is_neither_joined_nor_kept() -> None:
    async def test() -> None:
        flights = Flights(max_buffer_bytes=100)
        flight, _, listener = joined(flights)
        reading = asyncio.create_task(collect(listener))
        for _ in range(50):
            flight.append(b"0123456789")
            await flight.room()
            await asyncio.sleep(0)
        assert flight.spilled
        assert flights.lead_or_join(KEY)[1]
        with pytest.raises(Overloaded):
            flight.follow()
        with pytest.raises(Overloaded):
            flight.body()
        flight.finish()
        assert await reading == b"0123456789" * 50

    run(test)


def test_upstream_waits_for_the_quickest_and_cuts_those_far_behind() -> None:
    async def test() -> None:
        flight, _, quick = joined(Flights(max_buffer_bytes=100))
        slow = flight.follow()

        async def fetch() -> None:
            for _ in range(100):
                flight.append(bytes(10))
                await flight.room()
            flight.finish()

        fetching = asyncio.create_task(fetch())
        await until(lambda: flight.crowded)
        assert flight.size == 110, "nobody has taken anything yet"
        assert await collect(quick) == bytes(1000)
        await fetching
        with pytest.raises(Overloaded):
            await anext(slow)
        assert flight.listeners == 0

    run(test)


def test_when_all_leave_a_waiting_fetch_goes_on() -> None:
    async def test() -> None:
        flight, _, listener = joined(Flights(max_buffer_bytes=10))
        flight.append(bytes(50))
        waiting = asyncio.create_task(flight.room())
        await asyncio.sleep(0)
        assert not waiting.done()
        listener.close()
        await waiting
        assert flight.give_up()

    run(test)


def test_many_questions_many_listeners_random_cancels() -> None:
    """Each listener gets a prefix of its own answer, all of it unless it was cancelled: never another's bytes."""

    async def test() -> None:
        flights = Flights()

        async def fetch(flight: Flight) -> None:
            flight.start(200)
            for number in range(20):
                flight.append(flight.digest[:4] + bytes([number]))
                await asyncio.sleep(0)
            flight.finish()

        async def ask(number: int) -> None:
            key = digest(number % 7)
            flight, leads, listener = joined(flights, key)
            if leads:
                fetches.append(asyncio.create_task(fetch(flight)))
            got = b""
            try:
                with listener:
                    async for chunk in listener:
                        got += chunk
                        await asyncio.sleep(0)
            finally:
                whole = b"".join(key[:4] + bytes([step]) for step in range(20))
                ends.append(whole.startswith(got))
            assert got == whole

        fetches: list[asyncio.Task[None]] = []
        ends: list[bool] = []
        asks = []
        for number in range(600):
            asks.append(asyncio.create_task(ask(number)))
            if number % 5 == 0:
                await asyncio.sleep(0)
            if number % 3 == 0:
                asks[number // 2].cancel()
        results = await asyncio.gather(*asks, return_exceptions=True)
        await asyncio.gather(*fetches)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert results.count(None) > 300
        assert all(ends)
        assert len(flights) == 0

    run(test)
