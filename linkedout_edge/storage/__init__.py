"""The contents of `data_dir`: one SQLite database, its records, and their encryption."""

from linkedout_edge.storage.database import FILE_NAME, Database

__all__ = ["FILE_NAME", "Database"]
