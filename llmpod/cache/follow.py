"""Not a writer: keeps up with what another process writes into a directory that it has locked."""

import asyncio

from llmpod.cache.carrier import Carrier
from llmpod.cache.index import Index
from llmpod.cache.purger import Purger
from llmpod.cache.replay import Replay
from llmpod.cache.root import Unusable, why
from llmpod.cache.shelf import Shelf


class Follower:
    """Another process's books.

    Args:
        index: ours, which they become part of.
        shelf: told where their records are.
        carrier: the way to the disk.
    """

    def __init__(self, index: Index, shelf: Shelf, carrier: Carrier) -> None:
        self._index = index
        self._shelf = shelf
        self._carrier = carrier
        self._purger = Purger(index, shelf, carrier)
        self._replay: Replay | None = None
        self._lock = asyncio.Lock()

    async def begin(self) -> None:
        """Reads all there is. Raises Unusable."""
        replay = await self._carrier.scan()
        self._shelf.borrow(replay)
        replay.places, replay.news = {}, []
        self._replay = replay

    def end(self) -> None:
        """They are no longer to be followed."""
        self._replay = None

    async def catch_up(self) -> None:
        """Learns what has been written since. Raises Unusable."""
        async with self._lock:
            replay = self._replay
            if replay is None:
                return
            try:
                await self._carrier.follow(replay)
            except OSError as error:
                raise Unusable(f"the cache directory cannot be read: {why(error)}") from None
            news, replay.news, replay.places = replay.news or [], [], {}
            if replay is self._replay:
                for key, place in news:
                    self._index.learn(key, place)
                await self._purger.hear()
