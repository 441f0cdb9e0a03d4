"""Packages that only some users install."""

from importlib.util import find_spec


def require(extra: str, *modules: str) -> None:
    """Raises ValueError with the line that installs what is missing."""
    if missing := [module for module in modules if find_spec(module) is None]:
        raise ValueError(
            f"this needs {', '.join(missing)}: pip install 'dualtoken[{extra}]', or pip install -e '.[{extra}]'"
        )
