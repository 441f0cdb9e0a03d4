"""Makes transformers' Auto classes know our models, without importing transformers, which takes seconds.

`import dualtoken` must be quick, and it may come before or after `import transformers`. So the registration waits, by
the import system's own means (PEP 451), until transformers loads the module that lists the kinds of models.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

KINDS = "transformers.models.auto.configuration_auto"


def register_with_transformers() -> None:
    """At once if transformers' list of models is loaded, else as soon as it is."""
    if KINDS in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _RegisterOnImport())


def _register() -> None:
    from transformers import AutoConfig

    from mllm.auto_config import DualTokenConfig

    AutoConfig.register("dualtoken", DualTokenConfig, exist_ok=True)


class _RegisterOnImport(MetaPathFinder):
    """Finds one module as the others would, registers after it has run, and then gets out of the way."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != KINDS:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            _register()

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec
