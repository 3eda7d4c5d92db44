"""Hooks with which PyInstaller freezes apps that use this package; an entry point leads it here."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders that hold hooks."""
    return [str(Path(__file__).parent)]
