"""Not a holder of state of its own: what every connection of this process shares, in one place.

New settings put other rooms in (``reload.py``); a connection enters the present ones with each request.
"""

from dataclasses import dataclass

from llmpod.proxy.desk import Desk
from llmpod.proxy.gate import Gate
from llmpod.proxy.limits import Limiter
from llmpod.proxy.relay import Relay
from llmpod.proxy.room import Room
from llmpod.proxy.slots import Slots
from llmpod.proxy.sweep import Door, Sweep


@dataclass(slots=True)
class House:
    """Door, gate, limiter, desk, slots and relay, as a request meets them; the sweep ends what takes too long."""

    door: Door
    gate: Gate
    desk: Desk
    relay: Relay
    sweep: Sweep
    limiter: Limiter
    slots: Slots
    room: Room
