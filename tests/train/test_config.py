"""Every YAML builds its dataclass, a typo names its neighbour, and what is saved reads back equal."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from train.config import load_config, save_config


@dataclass(frozen=True)
class Inner:
    learning_rate: float = 1e-3
    names: list[str] = field(default_factory=list)
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])


@dataclass(frozen=True)
class Outer:
    steps: int = 1
    inner: Inner = field(default_factory=Inner)
    path: str | None = None


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("steps: 3\ninner: {learning_rate: 2e-4}\n")
    return path


def test_overrides_win_over_the_file_and_the_file_over_defaults(file):
    config = load_config(Outer, file, ["inner.names=[a,b]", "steps=5"])
    assert config == Outer(steps=5, inner=Inner(2e-4, ["a", "b"]))


def test_overrides_reach_into_lists_of_the_file_and_of_the_defaults(file):
    config = load_config(Outer, file, ["inner.names=[a,b]", "inner.names.0=c", "inner.betas.1=0.5"])
    assert config.inner == Inner(2e-4, ["c", "b"], [0.9, 0.5])


def test_a_saved_config_reads_back_equal(file, tmp_path):
    config = load_config(Outer, file, ["path=somewhere"])
    save_config(config, tmp_path / "resolved.yaml")
    assert load_config(Outer, tmp_path / "resolved.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stps=5", "unknown key 'stps'; did you mean 'steps'"),
        ("inner.learning_rat=5", "unknown key 'inner.learning_rat'; did you mean 'learning_rate'"),
        ("inner.zzz=5", "it has learning_rate, names, betas"),
        ("steps=many", "steps: .*could not be converted to Integer"),
        ("steps", "not of the form key=value"),
        ("inner.betas.2=1", r"config.yaml: override 'inner.betas.2=1' does not fit .*out of range.* key=\[a,b\]"),
        ("inner.betas.one=1", r"override 'inner.betas.one=1' does not fit .*key.0=value"),
        ("inner.betas={a: 1}", "override 'inner.betas={a: 1}' does not fit"),
        ("inner=[1", r"override 'inner=\[1' does not fit"),
    ],
)
def test_mistakes_are_named(file, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(Outer, file, [override])


def test_broken_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.yaml does not exist"):
        load_config(Outer, tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("steps: [1")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_config(Outer, tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="must hold"):
        load_config(Outer, tmp_path / "list.yaml")
    (tmp_path / "mapping.yaml").write_text("inner: {names: {a: 1}}")
    with pytest.raises(ValueError, match=r"mapping.yaml: .*a list where a mapping belongs, or the reverse"):
        load_config(Outer, tmp_path / "mapping.yaml")
