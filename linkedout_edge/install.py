"""The commands that install what is missing.

This package is on no index, so what concerns itself is installed from a clone; libraries are installed by their own
names, in the versions that it declares. Every message with a ``pip install`` line in it gets that line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NAME = "linkedout-edge"
_CLONE = f"(in the folder of your clone of {NAME})"
_PACKAGES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
"""Modules that are not called as the package that brings them."""


def library(*names: str, options: str = "") -> str:
    """The line that installs libraries, such as ``pip install 'av>=12'``.

    Args:
        names: Packages; those that this package declares come in the versions it takes.
        options: For pip.
    """
    declared = {name: wanted for name, wanted, _ in _requirements()}
    wanted = [declared.get(_normal(n), n) for n in names]
    return " ".join(["pip install", *filter(None, [options]), *map(_quoted, wanted)])


def extra(*names: str) -> str:
    """The line that installs extras, such as ``tools``, from a clone, with the versions that the tests ran with."""
    return f"pip install '.[{','.join(names)}]' -c constraints.txt {_CLONE}"


def again() -> str:
    """The line that installs this package again, if one of its files is missing or damaged."""
    return f"pip install --force-reinstall --no-deps . {_CLONE}"


def newer() -> str:
    """The line that installs a newer version of this package."""
    return f"git pull && pip install --upgrade . {_CLONE}"


def missing(module: str) -> str:
    """The line that installs a module: the extra `tools` for all that the workstation half alone needs."""
    root = module.partition(".")[0]
    package = _normal(_PACKAGES.get(root, root))
    extras = {x for name, _, x in _requirements() if name == package}
    return extra("tools") if extras == {"tools"} or root.startswith("linkedout_") else library(package)


def _requirements() -> Iterator[tuple[str, str, str]]:
    """Name, name with versions, and extra ("" if none) of every library that this package declares."""
    from importlib import metadata  # late: it is slow to import, and needed only to complain

    try:
        lines = metadata.requires(NAME) or []
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return
    for line in lines:
        found = re.match(r"([\w.-]+)([^;]*?)\s*(?:;.*?(?:extra == ['\"]([\w-]+)['\"].*)?)?$", line)
        if found and found[3] != "dev":
            yield _normal(found[1]), found[1] + found[2].replace(" ", ""), found[3] or ""


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _quoted(requirement: str) -> str:
    """For a shell: ``>`` would write into a file."""
    return requirement if re.fullmatch(r"[\w.-]+", requirement) else f"'{requirement}'"
