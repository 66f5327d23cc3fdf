"""Who hears what: feed, views, snapshots, subscriptions, connections, and the wire protocol. See README.md."""

from realtime import protocol
from realtime.connections import Connection, Refused, SubscribeRequest
from realtime.feed import Feed, Heart, Source
from realtime.feed_redis import RelayedSource
from realtime.frames import Frame, message_frame
from realtime.history import History
from realtime.log_redis import RedisLog
from realtime.manager import ConnectionManager
from realtime.principals import Principals
from realtime.read_cache import ReadCache
from realtime.recovery import LogPast, OplogPast, Past, Recovery
from realtime.relay import Relay
from realtime.snapshots import Snapshots
from realtime.upkeep import Upkeep
from realtime.views import View, ViewIndex, ViewQuery

__all__ = [
    "Connection",
    "ConnectionManager",
    "Feed",
    "Frame",
    "Heart",
    "History",
    "LogPast",
    "OplogPast",
    "Past",
    "Principals",
    "ReadCache",
    "Recovery",
    "RedisLog",
    "Refused",
    "Relay",
    "RelayedSource",
    "Snapshots",
    "Source",
    "SubscribeRequest",
    "Upkeep",
    "View",
    "ViewIndex",
    "ViewQuery",
    "message_frame",
    "protocol",
]
