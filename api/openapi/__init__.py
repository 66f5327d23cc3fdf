"""The OpenAPI 3.1 document: real schemas per class, parameters, headers, errors and examples."""

from api.openapi.aggregates import aggregate_models, distinct_operation, report_operation
from api.openapi.answers import by_session, error_answers, operation, query_parameter
from api.openapi.bulk import BulkOperations
from api.openapi.document import install_openapi
from api.openapi.files import FileOperations
from api.openapi.models import PATCH_MODELS, page_model
from api.openapi.operations import Operations

__all__ = [
    "PATCH_MODELS",
    "BulkOperations",
    "FileOperations",
    "Operations",
    "aggregate_models",
    "by_session",
    "distinct_operation",
    "error_answers",
    "install_openapi",
    "operation",
    "page_model",
    "query_parameter",
    "report_operation",
]
