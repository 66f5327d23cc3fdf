"""The outbox of one connection: frames that wait for the socket, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from realtime.frames import Frame

#: Messages of the connection itself (errors, pongs, resets) are small and always accepted up to this much more.
CONTROL_MARGIN_BYTES = 512 * 1024


class Outbox:
    """Frames in order. Putting never waits; the connection's writer takes them.

    Past `max_bytes` an event is refused, and the caller drops its view (the slow consumer policy). A frame larger
    than the bound is accepted when the outbox is empty. Nothing here is shared between connections, so a slow socket
    costs at most its own bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self.max_bytes = max_bytes
        self._frames: deque[Frame] = deque()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Add a frame of a view; False when the bound does not allow it."""
        if self.bytes and self.bytes + frame.size > self.max_bytes:
            return False
        self._append(frame)
        return True

    def put_control(self, frame: Frame) -> bool:
        """Add a message of the connection; False when even the margin for those is used up."""
        if self.bytes and self.bytes + frame.size > self.max_bytes + CONTROL_MARGIN_BYTES:
            return False
        self._append(frame)
        return True

    def _append(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.bytes += frame.size
        self._filled.set()

    def drop_view(self, view: str) -> None:
        """Remove the frames of one view that the socket has not taken yet.

        Waiting `position` frames go too: they would claim that the view has what is being dropped.
        """
        kept = [frame for frame in self._frames if frame.view != view and frame.event_name != "position"]
        self.bytes -= sum(frame.size for frame in self._frames) - sum(frame.size for frame in kept)
        self._frames = deque(kept)
        self._wake_waiters()

    async def take(self) -> list[Frame]:
        """All waiting frames; waits for the first. They count until `sent` is called. One taker at a time."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frames = list(self._frames)
        self._frames.clear()
        return frames

    def sent(self, size: int) -> None:
        """The socket has taken `size` bytes of what `take` returned."""
        self.bytes -= size
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        taken, self._taken = self._taken, asyncio.Event()
        taken.set()

    async def below(self, size: int) -> None:
        """Wait until at most `size` bytes are waiting."""
        while self.bytes > size:
            await self._taken.wait()
