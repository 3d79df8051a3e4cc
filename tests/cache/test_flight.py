from collections.abc import Callable
from random import Random

import pytest

from llmpod.cache import Flight, Flights, Listener
from llmpod.errors import Overloaded, UpstreamInvalid, UpstreamUnreachable
from tests.cache.helpers import digest

KEY = digest(0)


class Reader:
    """Follows a flight and takes what comes at once; ``busy`` makes it leave everything where it is."""

    def __init__(self, flight: Flight, *, busy: bool = False) -> None:
        self.flight = flight
        self.busy = busy
        self.status = 0
        self.chunks: list[bytes] = []
        self.error: Exception | None = None
        self.ended = False
        self.listener: Listener = flight.follow(self.wake)
        self.wake()

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def wake(self) -> None:
        if self.busy:
            return
        self.status = self.flight.head.status if self.flight.head else 0
        try:
            while (chunk := self.listener.take()) is not None:
                self.chunks.append(chunk)
        except Overloaded as error:
            self.error = error
        if self.error is not None or self.flight.over:
            self.ended = True
            self.error = self.error or self.flight.error
            self.listener.close()

    def stall(self) -> None:
        self.busy = True

    def resume(self) -> None:
        self.busy = False
        self.wake()


def is_crowded(flight: Flight) -> bool:
    return flight.crowded


def joined(flights: Flights, key: bytes = KEY, *, busy: bool = False) -> tuple[Flight, bool, Reader]:
    flight, leads = flights.lead_or_join(key)
    return flight, leads, Reader(flight, busy=busy)


def test_one_leads_and_the_others_get_the_same_from_the_first_byte_on() -> None:
    flights = Flights()
    flight, leads, first = joined(flights)
    assert leads
    readers = [first]
    flight.start(200, ((b"content-type", b"text/event-stream"),))
    for number in range(50):
        flight.append(b"<%d>" % number)
        same, leads, reader = joined(flights, busy=number % 3 == 0)
        assert (same, leads) == (flight, False)
        readers.append(reader)
    flight.finish()
    for reader in readers:
        reader.resume()
    whole = b"".join(b"<%d>" % number for number in range(50))
    assert [reader.body for reader in readers] == [whole] * 51
    assert all(reader.status == 200 for reader in readers)
    assert flight.body() == whole
    assert len(flights) == 0


def test_bytes_are_handed_on_within_the_call_that_brings_them_one_chunk_each() -> None:
    flight, _, reader = joined(Flights())
    flight.start(200)
    assert reader.status == 200
    for number in range(3):
        flight.append(b"%d" % number)
        assert len(reader.chunks) == number + 1


def test_a_quiet_start_wakes_nobody_before_the_first_bytes() -> None:
    flight, _, reader = joined(Flights())
    flight.start(200, quiet=True)
    assert reader.status == 0
    flight.append(b"x")
    assert (reader.status, reader.chunks) == (200, [b"x"])


def test_after_the_end_a_new_flight_begins() -> None:
    flights = Flights()
    flight, _, _ = joined(flights)
    flight.finish()
    other, leads = flights.lead_or_join(KEY)
    assert leads
    assert other is not flight
    flight.fail(UpstreamInvalid("late"))
    assert len(flights) == 1, "the end of an old flight does not end the new one"


def test_other_questions_fly_by_themselves() -> None:
    flights = Flights()
    assert joined(flights)[0] is not joined(flights, digest(1))[0]
    assert len(flights) == 2


def test_a_failure_before_the_first_byte_reaches_everybody() -> None:
    flights = Flights()
    flight, _, one = joined(flights)
    _, _, two = joined(flights)
    assert flight.head is None
    flight.fail(UpstreamUnreachable("gone"))
    assert [str(reader.error) for reader in (one, two)] == ["gone", "gone"]
    assert flights.lead_or_join(KEY)[1], "whoever asks again leads"


def test_a_failure_in_the_middle_comes_after_the_bytes_that_came() -> None:
    flight, _, reader = joined(Flights(), busy=True)
    flight.start(200)
    flight.append(b"half")
    flight.fail(UpstreamInvalid("cut"))
    assert not reader.ended
    reader.resume()
    assert (reader.body, str(reader.error)) == (b"half", "cut")
    assert flight.listeners == 0


def test_whoever_leaves_takes_nothing_with_him() -> None:
    flight, _, first = joined(Flights())
    second, third = Reader(flight), Reader(flight)
    first.listener.close()
    third.listener.close()
    third.listener.close()
    assert flight.listeners == 1
    flight.start(200)
    flight.append(b"x")
    flight.finish()
    assert (second.body, second.ended) == (b"x", True)
    assert (first.body, first.status) == (b"", 0), "who has left is not woken any more"


def test_who_leaves_while_all_are_woken_is_not_woken_any_more() -> None:
    flight, _, _ = joined(Flights())
    woken: list[int] = []
    listeners: list[Listener] = []

    def leave_for_all(number: int) -> Callable[[], None]:
        def wake() -> None:
            woken.append(number)
            for listener in listeners:
                listener.close()

        return wake

    listeners += [flight.follow(leave_for_all(number)) for number in range(5)]
    flight.append(b"x")
    assert len(woken) == 1
    assert flight.listeners == 1


def test_a_body_beyond_the_buffer_is_neither_joined_nor_kept() -> None:
    flights = Flights(max_buffer_bytes=100)
    flight, _, reader = joined(flights)
    for _ in range(50):
        flight.append(b"0123456789")
        assert not is_crowded(flight)
    assert flight.spilled
    assert flights.lead_or_join(KEY)[1]
    with pytest.raises(Overloaded):
        Reader(flight)
    with pytest.raises(Overloaded):
        flight.body()
    flight.finish()
    assert reader.body == b"0123456789" * 50


def test_upstream_waits_for_the_quickest_and_cuts_those_far_behind() -> None:
    flight, _, quick = joined(Flights(max_buffer_bytes=100), busy=True)
    slow = Reader(flight, busy=True)
    went_on: list[int] = []
    for _ in range(10):
        flight.append(bytes(10))
        assert not is_crowded(flight)
    flight.append(bytes(10))
    assert is_crowded(flight)
    flight.when_room = lambda: went_on.append(len(quick.chunks))
    quick.resume()
    assert went_on, "as soon as there is room"
    assert not is_crowded(flight)
    for _ in range(89):
        flight.append(bytes(10))
        assert not is_crowded(flight)
    flight.finish()
    assert (quick.body, quick.error) == (bytes(1000), None)
    slow.resume()
    assert isinstance(slow.error, Overloaded)
    assert flight.listeners == 0
    assert len(went_on) == 1, "told once for each time it asked"


def test_upstream_waits_for_who_reads_slowly_though_the_answer_is_kept_for_the_cache() -> None:
    flight, _, slow = joined(Flights(), busy=True)
    went_on: list[int] = []
    while not is_crowded(flight):
        flight.append(bytes(1000))
        assert flight.size < 2**20
    flight.when_room = lambda: went_on.append(flight.size)
    quick = Reader(flight)
    assert went_on == [flight.size]
    assert not is_crowded(flight)
    quick.listener.close()
    assert is_crowded(flight)
    slow.resume()
    assert not is_crowded(flight)
    assert flight.body() == slow.body


def test_when_all_leave_upstream_goes_on() -> None:
    flight, _, reader = joined(Flights(max_buffer_bytes=10), busy=True)
    flight.append(bytes(50))
    assert is_crowded(flight)
    went_on: list[bool] = []
    flight.when_room = lambda: went_on.append(True)
    reader.listener.close()
    assert went_on == [True]


class Crowd:
    """Readers and flights of seven questions, pushed about at random."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.flights = Flights(max_buffer_bytes=60)
        self.flying: dict[bytes, tuple[Flight, int]] = {}
        self.readers: list[tuple[bytes, Reader]] = []

    def step(self) -> None:
        key = digest(self.random.randrange(7))
        if not self.readers or self.random.random() < 0.25:
            self._ask(key)
        elif self.random.random() < 0.9:
            self._feed(key)
        else:
            reader = self.random.choice(self.readers)[1]
            self.random.choice((reader.listener.close, reader.stall, reader.resume))()

    def _ask(self, key: bytes) -> None:
        try:
            flight, leads, reader = joined(self.flights, key)
        except Overloaded:
            return
        self.readers.append((key, reader))
        if leads:
            self.flying[key] = (flight, 0)

    def _feed(self, key: bytes) -> None:
        flight, step = self.flying.pop(key, (None, 0))
        if flight is None:
            return
        flight.append(key[:4] + bytes([step]))
        if step == 19:
            flight.finish()
        else:
            self.flying[key] = (flight, step + 1)


def test_many_questions_many_readers_random_leaving() -> None:
    """Each reader gets a prefix of its own answer, all of it unless it left or failed: never another's bytes."""
    crowd = Crowd(seed=7)
    for _ in range(12000):
        crowd.step()
    for flight, _ in crowd.flying.values():
        flight.fail(UpstreamInvalid("cut"))
    complete = 0
    for key, reader in crowd.readers:
        if reader.listener.open:
            reader.resume()
        whole = b"".join(key[:4] + bytes([step]) for step in range(20))
        assert whole.startswith(reader.body)
        if reader.ended and reader.error is None:
            assert reader.body == whole
            complete += 1
    assert complete > 300
    assert len(crowd.flights) == 0
