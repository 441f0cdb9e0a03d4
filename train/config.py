"""Typed configuration: defaults of a frozen dataclass → YAML file → dotted `key=value` overrides, merged by OmegaConf.

A key that no dataclass has is an error that names the nearest one, and a value of the wrong type is an error that names
the key: a typo must never fall back to a default in silence.
"""

import dataclasses
import difflib
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

T = TypeVar("T")


def load_config(cls: type[T], path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> T:
    """Reads `path` into the dataclass `cls`, with `overrides` such as `["steps=100", "data.seed=1"]` on top.

    Raises FileNotFoundError for a missing file and ValueError for an unknown key, a wrong type or invalid YAML.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist; the shipped ones are under configs/")
    try:
        document = OmegaConf.load(path)
    except Exception as error:  # the YAML parser's own exceptions share no base class with OmegaConf's
        raise ValueError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, DictConfig):
        raise ValueError(f"config {path} must hold `key: value` lines, not a list or a bare value")
    return build_config(cls, [document], str(path), overrides)


def build_config(cls: type[T], layers: list[Any], source: str, overrides: list[str] | tuple[str, ...] = ()) -> T:
    """Merges `layers` (DictConfigs or plain dicts, the last wins), then `overrides` over the defaults of `cls`.

    `source` is for messages.
    """
    try:
        config = OmegaConf.merge(OmegaConf.structured(cls), *layers)
        config = OmegaConf.merge(config, _overridden(config, overrides, source))
        return OmegaConf.to_object(config)  # type: ignore[return-value]
    except ConfigKeyError as error:
        raise ValueError(_unknown_key(cls, error, source)) from error
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source}: {error.full_key or 'value'}: {reason}") from error
    except TypeError as error:
        raise ValueError(f"{source}: a key holds a list where a mapping belongs, or the reverse: {error}") from error


def save_config(config: Any, path: str | Path) -> None:
    """Writes the resolved dataclass `config` as YAML that `load_config` reads back to an equal object."""
    Path(path).write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


def _overridden(config: Any, overrides: list[str] | tuple[str, ...], source: str) -> Any:
    """An untyped copy of `config` with `overrides`, which reach into lists: `data.sources.0.weight=2`."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(config))  # frozen dataclasses are read-only, lists included
    for override in overrides:
        if "=" not in override:
            raise ValueError(f"override {override!r} is not of the form key=value")
        try:
            copy.merge_with_dotlist([override])
        except Exception as error:  # the YAML parser's own, OmegaConf's, or Python's for what is no index of a list
            raise ValueError(
                f"{source}: override {override!r} does not fit ({str(error).splitlines()[0]}); "
                "name list elements that exist by number, as in key.0=value, or give the whole list, as in key=[a,b]"
            ) from error
    return copy


def _unknown_key(cls: type, error: ConfigKeyError, source: str) -> str:
    owner = error.object_type if dataclasses.is_dataclass(error.object_type) else cls
    names = [field.name for field in dataclasses.fields(owner)]
    name = str(error.key)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    advice = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(names)}"
    return f"{source}: unknown key {error.full_key or name!r}; {advice}"
