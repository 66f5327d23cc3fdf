"""The starter classes: accounts, which every installation has, and a small publishing example to begin with."""

from documents.models.accounts import ApiKey, Session, User
from documents.models.files import StoredFile
from documents.models.publishing import Comment, Post

__all__ = ["ApiKey", "Comment", "Post", "Session", "StoredFile", "User"]
