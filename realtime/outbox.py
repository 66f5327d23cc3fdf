"""The outbox of one connection: frames that wait for the socket, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque

from realtime.frames import Frame

#: Messages of the connection itself (errors, pongs, resets) are small and always accepted up to this much more.
CONTROL_MARGIN_BYTES = 512 * 1024
#: The writer takes about this much at a time: what it has taken can no longer be dropped.
TAKE_BYTES = 64 * 1024


class Outbox:
    """Frames in order. Putting never waits; the connection's writer takes them.

    Past `max_bytes` an event is refused, and the caller drops its view (the slow consumer policy). A frame larger
    than the bound is accepted when the outbox is empty. Nothing here is shared between connections, so a slow socket
    costs at most its own bound.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        #: What the socket has taken so far: while it grows, the client reads.
        self.sent_bytes = 0
        #: What the writer has taken and not sent: the socket is busy with it.
        self._busy_bytes = 0
        self.max_bytes = max_bytes
        #: Each with whether it is a message of the connection.
        self._frames: deque[tuple[Frame, bool]] = deque()
        self._control_bytes = 0
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> bool:
        """Add a frame of a view; False when the bound does not allow it."""
        if self.bytes and self.bytes + frame.size > self.max_bytes:
            return False
        self._append(frame, control=False)
        return True

    def put_control(self, frame: Frame) -> bool:
        """Add a message of the connection; False when even the margin for those is used up.

        They have a bound of their own: a single frame of a view may be larger than both, and `ready` follows it.
        """
        if self._control_bytes and self._control_bytes + frame.size > CONTROL_MARGIN_BYTES:
            return False
        self._append(frame, control=True)
        return True

    def _append(self, frame: Frame, *, control: bool) -> None:
        self._frames.append((frame, control))
        self.bytes += frame.size
        self._control_bytes += frame.size if control else 0
        self._filled.set()

    def drop_view(self, view: str) -> list[Frame]:
        """Remove the frames of one view that the socket has not taken yet.

        What claims that the view has everything up to a position goes too. Of that, `position` frames are forgotten;
        the `pong` frames are returned, because somebody waits for them: send them when they are true again.
        """
        kept: deque[tuple[Frame, bool]] = deque()
        pongs: list[Frame] = []
        for frame, control in self._frames:
            if frame.view == view or frame.claims_position:
                self.bytes -= frame.size
                self._control_bytes -= frame.size if control else 0
                if frame.event_name == "pong":
                    pongs.append(frame)
            else:
                kept.append((frame, control))
        self._frames = kept
        self._wake_waiters()
        return pongs

    async def take(self) -> list[Frame]:
        """The next waiting frames, about TAKE_BYTES and at least one; waits for the first.

        They count until `sent` is called. One taker at a time. Safe to cancel.
        """
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        frames = [self._next()]
        size = frames[0].size
        while self._frames and (size := size + self._frames[0][0].size) <= TAKE_BYTES:
            frames.append(self._next())
        self._busy_bytes += sum(frame.size for frame in frames)
        return frames

    def _next(self) -> Frame:
        frame, control = self._frames.popleft()
        self._control_bytes -= frame.size if control else 0
        return frame

    def sent(self, size: int) -> None:
        """The socket has taken `size` bytes of what `take` returned."""
        self.bytes -= size
        self.sent_bytes += size
        self._busy_bytes -= size
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        taken, self._taken = self._taken, asyncio.Event()
        taken.set()

    async def below(self, size: int) -> None:
        """Wait until at most `size` bytes are waiting."""
        while self.bytes > size:
            await self._taken.wait()

    async def drained(self, size: int) -> None:
        """The same, once the socket has taken what it is busy with: that it is little does not mean that it moves."""
        moved = self.sent_bytes + self._busy_bytes
        while self.bytes > size or self.sent_bytes < moved:
            await self._taken.wait()
