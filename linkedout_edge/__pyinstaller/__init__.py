"""PyInstaller hooks for apps that use this package, found through an entry point."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """Folders that hold hooks."""
    return [str(Path(__file__).parent)]
