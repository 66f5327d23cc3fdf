"""The recent past of the feed, bounded in entries and bytes: what snapshots meet and returning clients read."""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from documents import Change, Entry, Position, Reset, ResetReason

#: What an entry without documents (reset, heartbeat) counts for.
_SMALL_ENTRY_BYTES = 200
_COMPACT_AFTER = 4_096


def _position(entry: Entry) -> Position:
    return entry.position


class History:
    """A ring of entries in the order of their positions.

    It covers everything above `floor`: a reader at or above it can be given exactly what it missed. At most
    `max_entries` entries and `max_bytes` bytes (as the events were on the wire) are kept; the oldest go first.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self.floor = Position.ZERO
        self.bytes = 0
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: list[Entry] = []
        self._start = 0
        #: How much more than the bounds there may be, for entries that were put in front.
        self.lent_entries = 0
        self.lent_bytes = 0
        #: The resets among the entries, in order.
        self._resets: deque[Reset] = deque()

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def restart(self, floor: Position) -> None:
        """Forget everything; cover what is above `floor` from now on."""
        self._entries, self._start, self.bytes, self.floor = [], 0, 0, floor
        self._resets.clear()
        self.return_lent()

    def append(self, entry: Entry) -> None:
        """Add the next entry; its position is above all earlier ones."""
        self._entries.append(entry)
        self.bytes += entry_size(entry)
        if isinstance(entry, Reset):
            self._resets.append(entry)
        # The newest entry always stays: a single one above the bound must still reach those who wait for it.
        most, most_bytes = self._max_entries + self.lent_entries, self._max_bytes + self.lent_bytes
        while len(self) > 1 and (len(self) > most or self.bytes > most_bytes):
            oldest = self._entries[self._start]
            self.bytes -= entry_size(oldest)
            self.floor = oldest.position
            if self._resets and self._resets[0] is oldest:
                self._resets.popleft()
            self._entries[self._start] = _GONE  # frees the entry before the list is compacted
            self._start += 1
        if self._start > _COMPACT_AFTER and self._start * 2 > len(self._entries):
            del self._entries[: self._start]
            self._start = 0

    def prepend(self, entries: Sequence[Entry], floor: Position) -> None:
        """Put older entries in front: all that happened above `floor`, up to the present floor.

        The bounds are raised by what they hold, until `return_lent`.
        """
        self._entries[: self._start] = entries
        self._start = 0
        self.floor = floor
        size = sum(map(entry_size, entries))
        self.bytes += size
        self.lent_entries += len(entries)
        self.lent_bytes += size
        self._resets.extendleft(entry for entry in reversed(entries) if isinstance(entry, Reset))

    def return_lent(self) -> None:
        """Keep within the bounds again, from the next entry on."""
        self.lent_entries = self.lent_bytes = 0

    def covers(self, position: Position, collection: str) -> bool:
        """Whether all that happened in `collection` above `position` can be told, change by change.

        Not across a reset. Costs next to nothing, however long the history is.
        """
        return position >= self.floor and not any(
            reset.position > position and concerns(reset, collection) for reset in self._resets
        )

    def after(self, position: Position, limit: int | None = None) -> Sequence[Entry] | None:
        """Up to `limit` entries above `position`, in order; None when some of them are gone."""
        if position < self.floor:
            return None
        first = bisect_right(self._entries, position, lo=self._start, key=_position)
        return self._entries[first:] if limit is None else self._entries[first : first + limit]


def concerns(entry: Entry, collection: str) -> bool:
    """Whether `entry` is a reset of `collection`: what is known of it must be forgotten."""
    return isinstance(entry, Reset) and (entry.collections is None or collection in entry.collections)


def entry_size(entry: Entry) -> int:
    """What an entry counts for in a bound, in bytes."""
    return entry.size if isinstance(entry, Change) else _SMALL_ENTRY_BYTES


_GONE: Entry = Reset(Position.ZERO, {}, dt.datetime.min.replace(tzinfo=dt.UTC), frozenset(), ResetReason.HISTORY_LOST)
