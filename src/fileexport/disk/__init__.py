"""The only rooms that touch exported files."""
