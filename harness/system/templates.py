"""Pages made from templates: everything escaped, nothing left out silently."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["page_environment"]


def page_environment(*folders: Path) -> Environment:
    """Open templates of HTML pages.

    Parameters
    ----------
    *folders : Path
        Where the templates lie, in the order in which they are looked for.

    Returns
    -------
    jinja2.Environment
        Escapes what it is given and refuses names that it does not know.
    """
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
