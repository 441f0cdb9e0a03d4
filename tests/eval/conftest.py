"""A tiny exported model, as a user has it in a folder."""

import pytest

from tests.eval.tiny_unified import export


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("unified"))
    export(path)
    return path
