"""The catalogue of a campaign: the DuckDB file, its versions, and questions from outside."""

from harness.catalog.database import Catalog, connect
from harness.catalog.guard import GuardedCatalog, QueryError, require_select

__all__ = ["Catalog", "GuardedCatalog", "QueryError", "connect", "require_select"]
