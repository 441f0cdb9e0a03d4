"""Names of models: a folder, or the id of a repository on the Hugging Face hub, which is fetched once and kept."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
SHIPPED = "assets/emoji-model"
DOWNLOAD = ("revision", "cache_dir", "token", "local_files_only", "force_download")
IGNORED = ("_from_auto", "trust_remote_code", "adapter_kwargs", "config")


def local_folder(name: str | Path, files: Sequence[str] | None = None, **download: Any) -> Path:
    """The folder that `name` is, or where the hub's repository of that id lies on this machine.

    `files` are patterns of what is needed of a repository; `download` goes to huggingface_hub's snapshot_download:
    revision, cache_dir, token, local_files_only, force_download. What begins with the name of a folder here is a path.
    """
    text = str(name)
    if Path(name).parts[:2] == Path(SHIPPED).parts and not Path(name).exists():
        raise FileNotFoundError(
            f"{text}, which ships with the repository, is not here: work in a clone of it, or name another model."
        )
    if not _HUB_ID.fullmatch(text) or Path(text).parts[0] in (".", "..") or Path(Path(text).parts[0]).exists():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, allow_patterns=None if files is None else list(files), **download))
    except LocalEntryNotFoundError as error:
        reason = "it is not in the cache, and the hub cannot be reached"
        raise FileNotFoundError(_neither(text, reason)) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise FileNotFoundError(_neither(text, str(error).strip().splitlines()[0].rstrip("."))) from error


def _neither(name: str, reason: str) -> str:
    return f"{name!r} is neither a folder here nor a model that could be fetched from the Hugging Face hub: {reason}."


def download_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Of the keywords that transformers' Auto classes pass on, those of the download; ValueError for a foreign one."""
    foreign = [name for name in options if name not in (*DOWNLOAD, *IGNORED)]
    if foreign:
        raise ValueError(f"{foreign[0]!r} is no option here; those of a download are {', '.join(DOWNLOAD)}.")
    return {name: value for name, value in options.items() if name in DOWNLOAD}


def refuse_save_options(options: Mapping[str, Any]) -> None:
    """ValueError where one of transformers' keywords to `save_pretrained` asks for what it does not do."""
    done = {"is_main_process": True, "push_to_hub": False, "safe_serialization": True}
    for name, value in options.items():
        if value is not None and value != done.get(name):
            advice = "save first, then call push_to_hub(repo_id)" if name == "push_to_hub" else "leave it out"
            raise ValueError(f"save_pretrained has no option {name}={value!r} here: {advice}.")
