"""Not who asks: forgets, in a process that uses a cache directory, what others ask it to (``notices.py``)."""

import asyncio
from typing import Final

from llmpod.cache.carrier import Carrier
from llmpod.cache.index import Index
from llmpod.cache.notices import Notice
from llmpod.cache.shelf import Shelf

_STEP: Final = 1024  # entries forgotten at once: about a millisecond


class Purger:
    """Carries notices out.

    Args:
        index: the books.
        shelf: the places of its records.
        carrier: the way to the disk.
    """

    def __init__(self, index: Index, shelf: Shelf, carrier: Carrier) -> None:
        self._index = index
        self._shelf = shelf
        self._carrier = carrier
        self._heard: set[str] = set()

    async def carry_out(self) -> None:
        """For who writes the directory: what is asked for is gone from it before that is said."""
        for notice in await self._carrier.notices():
            if notice.done or not self._shelf.writable:
                continue
            known = await self._forget(notice)
            await self._shelf.snapshot()
            await self._carrier.acknowledge(notice, known)

    async def hear(self) -> None:
        """For who only reads it."""
        notices = await self._carrier.notices()
        for notice in notices:
            if notice.nonce not in self._heard:
                await self._forget(notice)
        self._heard = {notice.nonce for notice in notices}

    async def _forget(self, notice: Notice) -> int:
        if notice.keys is None:
            return await self._forget_all()
        known = 0
        for place, key in enumerate(notice.keys, 1):
            known += self._index.forget(key, erase=True)
            if not place % _STEP:
                await asyncio.sleep(0)
        return known

    async def _forget_all(self) -> int:
        """Whole files go, so nothing must be overwritten."""
        before = len(self._index)
        self._shelf.space.seal()
        for key in self._index.memory.order():
            self._index.forget(key, erase=False)
        digits = list(self._index.cold.places)
        for start in range(0, len(digits), _STEP):
            self._index.forget_cold(digits[start : start + _STEP])
            await asyncio.sleep(0)
        return before
