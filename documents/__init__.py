"""The state: document classes, access rules, filters, schema, store, and the change stream. See README.md."""

from documents.access import ANONYMOUS, SYSTEM_AUTHOR, Access, Principal, anyone, nobody, owner, role, signed_in, where
from documents.accounts import (
    SESSIONS,
    USERS,
    Account,
    Accounts,
    fold,
    is_alive,
    parse_user_id,
    principal_from,
    public_user,
)
from documents.actions import Action, ActionForm, Notice, Performed
from documents.aggregates import MAX_VALUES, Aggregates, DistinctField, Rows, parse_distinct
from documents.api_keys import ApiKeys
from documents.audit import Audit, AuditEvent
from documents.backup_export import export_backup
from documents.backup_import import abandon_import, import_backup, refuse_half_imported
from documents.backups import BackupRefused, Folder, Manifest, Progress, with_contents
from documents.broken import BrokenDocuments
from documents.bulk import Bulk, Operation, OperationFailed, Outcome, OutOfTime, Verb
from documents.canaries import Canary
from documents.changes import Beat, Change, ChangeKind, Checkpoint, Entry, Reset, ResetReason
from documents.checkpoints import Checkpoints
from documents.codec import Stored
from documents.contents import Contents
from documents.credentials import API_KEYS, Credential, Credentials, Standing, Terms
from documents.cursors import CursorCodec
from documents.database import Database, MongoDatabase
from documents.demo import Demo
from documents.derived import Keeper
from documents.diagnosis import DatabaseState, checkpoint_age, collections_without_images, database_state
from documents.differences import Difference, differences
from documents.embedded import EmbeddedDatabase
from documents.entry_codec import EntryCodec, Logged, NotAnEntry
from documents.errors import (
    ConditionMissing,
    Contended,
    ContentLost,
    DatabaseAway,
    DatabaseRefused,
    DeclarationError,
    DocumentRefused,
    DocumentsError,
    Duplicate,
    Fault,
    FilterRefused,
    Forbidden,
    HistoryLost,
    Inapplicable,
    InvalidInput,
    KeyHeld,
    LastAdmin,
    NotFound,
    QueryTooSlow,
    RefreshRefused,
    RefreshReused,
    ResetRefused,
    Stale,
    TooMany,
)
from documents.expansion import Expansion, Expansions, parse_expand, references_of
from documents.exports import CsvLines, Export, ExportQuery, Exports, Lines, NdjsonLines
from documents.filenames import clean_filename
from documents.files import MAX_FILES, Batch, Content, Files
from documents.filters import (
    EVERYTHING,
    DocumentTest,
    Filter,
    canonical,
    compile_predicate,
    conjunction,
    parse_filter,
    parse_short,
)
from documents.forms import Forms, forms_of
from documents.heartbeat import Heartbeat, always
from documents.idempotency import Claim, Claims, KeptAnswer, key_reused
from documents.ids import allotted_id, parse_id, repeatable_ids
from documents.inspection import BrokenCount, BrokenDocument, broken_documents, count_broken
from documents.lists import Count, ListQuery, Lists, Page, Result, words_filter
from documents.markers import DerivedFrom, Hidden, ReadOnly, References, SetOnCreate, VisibleTo, current_user
from documents.memory import MemoryDatabase
from documents.opening import bind_classes, live_collections, open_database, refuse_without_changes
from documents.password_resets import LIFETIME as RESET_LIFETIME
from documents.password_resets import PasswordResets, Reclaim
from documents.patches import Patch, PatchKind
from documents.performance import perform
from documents.pipelines import Parameter, Report
from documents.pools import PoolUse
from documents.positions import Position, PositionCodec
from documents.preconditions import NO_PRECONDITIONS, Preconditions, parse_tags
from documents.public import (
    FOREIGN_ID,
    INVALID,
    PublicForm,
    changed_fields,
    encode_json,
    public_id,
    public_value,
    rfc3339,
    selected,
)
from documents.reimport import as_new
from documents.resources import BOOKKEEPING, RESERVED_IDS, LiveDocument, Registry, Resource, ResourceClass, utc_now
from documents.schema import SchemaAction, install, install_one
from documents.selection import Selected, Selection, TooManyMatch
from documents.sessions import Renewal, Sessions
from documents.shapes import Fields
from documents.sorting import BY_ID, Sort, SortKey, parse_sort, sort_documents, sort_kinds, sortable_names
from documents.store import Found, Store
from documents.tailer import ChangeStream
from documents.tickets import LIFETIME as TICKET_LIFETIME
from documents.tickets import Admission, Tickets
from documents.validators import json_schema
from documents.workers import Order, Workers

__all__ = [
    "ANONYMOUS",
    "API_KEYS",
    "BOOKKEEPING",
    "BY_ID",
    "EVERYTHING",
    "FOREIGN_ID",
    "INVALID",
    "MAX_FILES",
    "MAX_VALUES",
    "NO_PRECONDITIONS",
    "RESERVED_IDS",
    "RESET_LIFETIME",
    "SESSIONS",
    "SYSTEM_AUTHOR",
    "TICKET_LIFETIME",
    "USERS",
    "Access",
    "Account",
    "Accounts",
    "Action",
    "ActionForm",
    "Admission",
    "Aggregates",
    "ApiKeys",
    "Audit",
    "AuditEvent",
    "BackupRefused",
    "Batch",
    "Beat",
    "BrokenCount",
    "BrokenDocument",
    "BrokenDocuments",
    "Bulk",
    "Canary",
    "Change",
    "ChangeKind",
    "ChangeStream",
    "Checkpoint",
    "Checkpoints",
    "Claim",
    "Claims",
    "ConditionMissing",
    "Contended",
    "Content",
    "ContentLost",
    "Contents",
    "Count",
    "Credential",
    "Credentials",
    "CsvLines",
    "CursorCodec",
    "Database",
    "DatabaseAway",
    "DatabaseRefused",
    "DatabaseState",
    "DeclarationError",
    "Demo",
    "DerivedFrom",
    "Difference",
    "DistinctField",
    "DocumentRefused",
    "DocumentTest",
    "DocumentsError",
    "Duplicate",
    "EmbeddedDatabase",
    "Entry",
    "EntryCodec",
    "Expansion",
    "Expansions",
    "Export",
    "ExportQuery",
    "Exports",
    "Fault",
    "Fields",
    "Files",
    "Filter",
    "FilterRefused",
    "Folder",
    "Forbidden",
    "Forms",
    "Found",
    "Heartbeat",
    "Hidden",
    "HistoryLost",
    "Inapplicable",
    "InvalidInput",
    "Keeper",
    "KeptAnswer",
    "KeyHeld",
    "LastAdmin",
    "Lines",
    "ListQuery",
    "Lists",
    "LiveDocument",
    "Logged",
    "Manifest",
    "MemoryDatabase",
    "MongoDatabase",
    "NdjsonLines",
    "NotAnEntry",
    "NotFound",
    "Notice",
    "Operation",
    "OperationFailed",
    "Order",
    "OutOfTime",
    "Outcome",
    "Page",
    "Parameter",
    "PasswordResets",
    "Patch",
    "PatchKind",
    "Performed",
    "PoolUse",
    "Position",
    "PositionCodec",
    "Preconditions",
    "Principal",
    "Progress",
    "PublicForm",
    "QueryTooSlow",
    "ReadOnly",
    "Reclaim",
    "References",
    "RefreshRefused",
    "RefreshReused",
    "Registry",
    "Renewal",
    "Report",
    "Reset",
    "ResetReason",
    "ResetRefused",
    "Resource",
    "ResourceClass",
    "Result",
    "Rows",
    "SchemaAction",
    "Selected",
    "Selection",
    "Sessions",
    "SetOnCreate",
    "Sort",
    "SortKey",
    "Stale",
    "Standing",
    "Store",
    "Stored",
    "Terms",
    "Tickets",
    "TooMany",
    "TooManyMatch",
    "Verb",
    "VisibleTo",
    "Workers",
    "abandon_import",
    "allotted_id",
    "always",
    "anyone",
    "as_new",
    "bind_classes",
    "broken_documents",
    "canonical",
    "changed_fields",
    "checkpoint_age",
    "clean_filename",
    "collections_without_images",
    "compile_predicate",
    "conjunction",
    "count_broken",
    "current_user",
    "database_state",
    "differences",
    "encode_json",
    "export_backup",
    "fold",
    "forms_of",
    "import_backup",
    "install",
    "install_one",
    "is_alive",
    "json_schema",
    "key_reused",
    "live_collections",
    "nobody",
    "open_database",
    "owner",
    "parse_distinct",
    "parse_expand",
    "parse_filter",
    "parse_id",
    "parse_short",
    "parse_sort",
    "parse_tags",
    "parse_user_id",
    "perform",
    "principal_from",
    "public_id",
    "public_user",
    "public_value",
    "references_of",
    "refuse_half_imported",
    "refuse_without_changes",
    "repeatable_ids",
    "rfc3339",
    "role",
    "selected",
    "signed_in",
    "sort_documents",
    "sort_kinds",
    "sortable_names",
    "utc_now",
    "where",
    "with_contents",
    "words_filter",
]
