"""Who may do what: the declared outcome of every surface, for every persona and document. Read it as the policy.

A block names surfaces and then, a line for each kind of document, the outcome for each persona. Outcomes:

    ok      it happened, or the whole document came
    part    the document came without the fields that only admins see
    empty   an answer without the document
    401     sign in (again)         403   not allowed        404   there is no such document
    4501    the socket was closed: authentication failed

    -       not tried: it would end the persona itself

`key` is an API key of `user`'s that is good for reading. `dead` are three personas: an expired token, a session that
was ended, and a user who was deactivated.
"""

from __future__ import annotations

PERSONAS = ("anonymous", "user", "other", "moderator", "admin", "key", "dead")

#: Posts and comments of `user`; a draft is what others may not see, `hidden` is what a moderator took down.
_PUBLISHING = """
GET {c} · GET {c} ?filter · GET {c} ?sort · GET {c} ?fields · GET {c} ?search · GET {c} ?count · GET {c} ?limit
GET {c} ?cursor · GET {c} ?page · GET {c} ?page_size · HEAD {c} · short filter
GET {c} application/x-ndjson · GET {c} text/csv · GET {c} text/event-stream · event over SSE
GET {c} ?expand · GET {c}/distinct/{field} · GET {c}/distinct/{field} ?filter · GET {c}/distinct/{field} ?search
GET {c}/distinct/{field} ?count · GET {c}/distinct/{field} ?limit · HEAD {c}/distinct/{field}
            anonymous   user    other   moderator   admin   key     dead
draft       empty       ok      empty   ok          ok      ok      401
published   ok          ok      ok      ok          ok      ok      401
hidden      empty       ok      empty   ok          ok      ok      401

ws subscribe · event · ws auth
draft       empty       ok      empty   ok          ok      ok      4501
published   ok          ok      ok      ok          ok      ok      4501
hidden      empty       ok      empty   ok          ok      ok      4501

GET {c}/{id} · HEAD {c}/{id} · GET {c}/{id} ?expand
draft       404         ok      404     ok          ok      ok      401
published   ok          ok      ok      ok          ok      ok      401
hidden      404         ok      404     ok          ok      ok      401

POST {c} · POST {c}/import · POST {c}/import application/x-ndjson
draft       401         ok      ok      ok          ok      403     401
published   401         ok      ok      ok          ok      403     401
hidden      401         403     403     ok          ok      403     401

PUT {c}/{id} · PATCH {c}/{id} application/json · PATCH {c}/{id} application/merge-patch+json · DELETE {c}/{id}
PATCH {c}/{id} application/json-patch+json · PATCH {c}/{id} application/vnd.headwater.update+json · POST {c}/bulk
draft       404         ok      404     ok          ok      403     401
published   401         ok      403     ok          ok      403     401
hidden      404         403     404     ok          ok      403     401

DELETE {c} · DELETE {c} ?filter · DELETE {c} ?search · PATCH {c} ?filter · PATCH {c} ?search
PATCH {c} application/json · PATCH {c} application/merge-patch+json
PATCH {c} application/json-patch+json · PATCH {c} application/vnd.headwater.update+json
draft       401         ok      empty   ok          ok      403     401
published   401         ok      empty   ok          ok      403     401
hidden      401         empty   empty   ok          ok      403     401

POST {c}/{id}/moderate
draft       404         403     404     ok          ok      403     401
published   401         403     403     ok          ok      403     401
hidden      404         403     404     ok          ok      403     401
"""

POSTS = (
    _PUBLISHING
    + """
GET {c}/reports/tags · GET {c}/reports/tags ?most · GET {c}/reports/tags ?since · GET {c}/reports/tags ?status
HEAD {c}/reports/tags · embedded in another
            anonymous   user    other   moderator   admin   key     dead
draft       empty       ok      empty   ok          ok      ok      401
published   ok          ok      ok      ok          ok      ok      401
hidden      empty       ok      empty   ok          ok      ok      401
"""
)

#: There are no drafts of comments.
COMMENTS = "\n".join(line for line in _PUBLISHING.splitlines() if not line.startswith("draft "))

#: Users: `own` is `user`'s account, `other's` somebody else's.
USERS = """
GET {c} · GET {c} ?filter · GET {c} ?sort · GET {c} ?fields · GET {c} ?search · GET {c} ?count · GET {c} ?limit
GET {c} ?cursor · GET {c} ?page · GET {c} ?page_size · HEAD {c} · short filter
GET {c} application/x-ndjson · GET {c} text/csv · GET {c} text/event-stream · GET {c}/{id} · HEAD {c}/{id}
            anonymous   user    other   moderator   admin   key     dead
own         401         part    part    part        ok      part    401
other's     401         part    part    part        ok      part    401

event over SSE
other's     401         part    part    part        ok      part    401

ws subscribe · ws auth
own         empty       part    part    part        ok      part    4501
other's     empty       part    part    part        ok      part    4501

event
other's     empty       part    part    part        ok      part    4501

PATCH {c}/{id} application/json · PATCH {c}/{id} application/merge-patch+json · DELETE {c}/{id}
own         401         403     403     403         -       403     401
other's     401         403     403     403         ok      403     401
"""

#: Sessions of `user` and of somebody else. They have no routes; their own user and admins may watch them.
SESSIONS = """
ws subscribe · event · ws auth
            anonymous   user    other   moderator   admin   key     dead
own         empty       ok      empty   empty       ok      empty   4501
other's     empty       empty   empty   empty       ok      empty   4501
"""

#: API keys of `user` and of somebody else. A key is no way to keys: neither to read nor to change them.
API_KEYS = (
    SESSIONS
    + """
GET {c} · GET {c} ?filter · GET {c} ?sort · GET {c} ?fields · GET {c} ?search · GET {c} ?count · GET {c} ?limit
GET {c} ?cursor · GET {c} ?page · GET {c} ?page_size · HEAD {c} · short filter
GET {c} application/x-ndjson · GET {c} text/csv · GET {c} text/event-stream · GET {c} ?expand
own         401         ok      empty   empty       ok      403     401
other's     401         empty   empty   empty       ok      403     401

GET {c}/{id} · HEAD {c}/{id} · GET {c}/{id} ?expand · DELETE {c}/{id}
own         401         ok      404     404         ok      403     401
other's     401         404     404     404         ok      403     401

POST {c}
own         401         ok      ok      ok          ok      403     401
"""
)

#: Files of `user` and of somebody else. Moderators read them all, and delete none.
FILES = """
GET {c} · GET {c} ?filter · GET {c} ?sort · GET {c} ?fields · GET {c} ?search · GET {c} ?count · GET {c} ?limit
GET {c} ?cursor · GET {c} ?page · GET {c} ?page_size · HEAD {c} · short filter · GET {c} ?expand
GET {c} application/x-ndjson · GET {c} text/csv · GET {c} text/event-stream
            anonymous   user    other   moderator   admin   key     dead
own         empty       ok      empty   ok          ok      ok      401
other's     empty       empty   empty   ok          ok      empty   401

ws subscribe · event · ws auth
own         empty       ok      empty   ok          ok      ok      4501
other's     empty       empty   empty   ok          ok      empty   4501

GET {c}/{id} · HEAD {c}/{id} · GET {c}/{id} ?expand · GET {c}/{id}/content · GET {c}/{id}/content ?disposition
GET {c}/{id}/content application/octet-stream · GET {c}/{id}/content */* · HEAD {c}/{id}/content
own         404         ok      404     ok          ok      ok      401
other's     404         404     404     ok          ok      404     401

POST {c} · POST {c} ?images_only
own         401         ok      ok      ok          ok      403     401

DELETE {c}/{id}
own         404         ok      404     403         ok      403     401
other's     404         404     404     403         ok      404     401
"""

#: By collection. A class that is not here fails the matrix.
TABLES = {
    "posts": POSTS,
    "comments": COMMENTS,
    "users": USERS,
    "sessions": SESSIONS,
    "api_keys": API_KEYS,
    "files": FILES,
}

#: Surfaces that show or change no document of a class, and where they are tested.
ELSEWHERE = {
    "POST auth/register": "test_accounts.py, test_closed_registration.py",
    "POST auth/login": "test_accounts.py, test_sessions.py, test_login_burst.py",
    "POST auth/refresh": "test_sessions.py",
    "POST auth/logout": "test_sessions.py",
    "POST auth/password/forgot": "test_password_reset.py",
    "POST auth/password/reset": "test_password_reset.py",
    "POST auth/ticket": "test_tickets.py",
    "GET schemas": "the classes' forms, the same for everybody: they show no document",
    "HEAD schemas": "the same",
    "GET schemas/{name}": "the same",
    "HEAD schemas/{name}": "the same",
    "GET users/me": "test_own_account.py",
    "HEAD users/me": "test_own_account.py",
    "PATCH users/me": "test_own_account.py",
    "POST users/me/password": "test_own_account.py",
    "GET admin/workers": "test_admin.py",
    "HEAD admin/workers": "test_admin.py",
    "GET admin/connections": "test_admin.py",
    "HEAD admin/connections": "test_admin.py",
    "DELETE admin/connections": "test_admin.py",
    "ws": "test_websocket.py: the handshake; its messages are surfaces of their own",
    "ws ping": "test_websocket.py, ../realtime: it names no document",
    "ws unsubscribe": "test_websocket.py: it names no document",
}

Expected = dict[str, dict[str, dict[str, str]]]


def parse(table: str) -> Expected:
    """The table as surface → document → persona → outcome. Raises ValueError for one that is not written well."""
    expected: Expected = {}
    for block in table.strip().split("\n\n"):
        surfaces: list[str] = []
        rows: dict[str, dict[str, str]] = {}
        for line in block.splitlines():
            words = line.split()
            if "{c}" in line or " · " in line or line.startswith(("ws ", "event")):
                surfaces += [surface.strip() for surface in line.split("·")]
            elif len(words) == len(PERSONAS) + 1:
                rows[words[0]] = dict(zip(PERSONAS, words[1:], strict=True))
            elif tuple(words) != PERSONAS:
                raise ValueError(f"a line of the table is not a row: {line!r}")
        for surface in surfaces:
            if surface in expected:
                raise ValueError(f"{surface} has two blocks")
            expected[surface] = rows
    return expected
