"""Broken documents: those that are stored although they break the rules of their class.

Older versions of a class leave them, and people in mongosh where validators only warn. They are served as far as they
can be, with the names of the fields in question; here they are counted, and named in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from documents.public import public_id
from documents.resources import Registry
from documents.validators import json_schema
from documents.validity import Validity

logger = logging.getLogger("headwater.documents")

#: How many are remembered, so that each is told of once.
_MAX_KNOWN = 20_000
#: An export of a million of them must not fill the disk with a million lines.
_LINES_A_MINUTE = 100
_MAX_NAMED = 20
_MAX_NAME = 80


class BrokenDocuments:
    """Judges stored documents of all classes. Safe to use from several threads.

    `counts` has, by collection, how many broken documents this process has come upon, whenever it was about to show
    one to somebody. Each counts once, and once more for each revision and each change of what is wrong with it.
    """

    def __init__(self, registry: Registry) -> None:
        self.counts: dict[str, int] = {resource.name: 0 for resource in registry}
        self._validities = {resource.name: Validity(json_schema(resource)) for resource in registry}
        self._id_kinds = {resource.name: resource.id_kind for resource in registry}
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()
        self._minute, self._lines, self._unnamed = 0.0, 0, 0

    def faults(self, name: str, stored: Mapping[str, Any]) -> Sequence[str]:
        """The fields in which a document of the collection `name` breaks the rules, as stored; undeclared ones too."""
        if found := self._validities[name].faults(stored):
            self._note(name, stored, found)
        return found

    def _note(self, name: str, stored: Mapping[str, Any], faults: Sequence[str]) -> None:
        document_id = public_id(stored.get("_id"), self._id_kinds[name])
        key = (name, document_id, repr(stored.get("revision")), tuple(faults))
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return
            self._known[key] = None
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
            self.counts[name] += 1
            if not self._may_log():
                return
        # Names of fields that nobody declared are anybody's text; values are never told.
        named = ", ".join(ascii(fault[:_MAX_NAME]) for fault in faults[:_MAX_NAMED])
        more = f" and {len(faults) - _MAX_NAMED} more" if len(faults) > _MAX_NAMED else ""
        logger.warning("%s %s breaks the rules of its class in %s%s", name, ascii(document_id[:200]), named, more)

    def _may_log(self) -> bool:
        now = time.monotonic()
        if now - self._minute >= 60:
            if self._unnamed:
                logger.warning("%d more documents that break the rules were not named here", self._unnamed)
            self._minute, self._lines, self._unnamed = now, 0, 0
        self._lines += 1
        self._unnamed += self._lines > _LINES_A_MINUTE
        return self._lines <= _LINES_A_MINUTE
