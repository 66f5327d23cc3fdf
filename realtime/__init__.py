"""Who hears what: feed, views, snapshots, subscriptions, connections, and the wire protocol. See README.md."""

from realtime import protocol
from realtime.connections import Connection, Origin, Refused, SubscribeRequest, Transport
from realtime.delays import BOUNDS as DELAY_BOUNDS
from realtime.delays import Delays
from realtime.feed import Feed, Heart, Source
from realtime.feed_redis import RelayedSource
from realtime.feed_status import FEED_MODES, FeedMode, FeedStatus, Relaying
from realtime.frames import Frame, message_frame
from realtime.history import History
from realtime.log_redis import LogAway, LogTooShort, RedisLog
from realtime.log_state import LogState, log_state
from realtime.manager import ConnectionManager
from realtime.principals import Principals
from realtime.read_cache import ReadCache
from realtime.recovery import LogPast, OplogPast, Past, Recovery
from realtime.redis_place import CLUSTER, RedisPlace
from realtime.redis_pool import use_of
from realtime.relay import Relay
from realtime.roll_call import RollCall
from realtime.snapshots import Snapshots
from realtime.upkeep import Upkeep
from realtime.views import View, ViewIndex, ViewQuery

__all__ = [
    "CLUSTER",
    "DELAY_BOUNDS",
    "FEED_MODES",
    "Connection",
    "ConnectionManager",
    "Delays",
    "Feed",
    "FeedMode",
    "FeedStatus",
    "Frame",
    "Heart",
    "History",
    "LogAway",
    "LogPast",
    "LogState",
    "LogTooShort",
    "OplogPast",
    "Origin",
    "Past",
    "Principals",
    "ReadCache",
    "Recovery",
    "RedisLog",
    "RedisPlace",
    "Refused",
    "Relay",
    "RelayedSource",
    "Relaying",
    "RollCall",
    "Snapshots",
    "Source",
    "SubscribeRequest",
    "Transport",
    "Upkeep",
    "View",
    "ViewIndex",
    "ViewQuery",
    "log_state",
    "message_frame",
    "protocol",
    "use_of",
]
