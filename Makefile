# Two commands matter, `make demo` and `make test`; both install first what is not installed yet.
#
#   make install     .venv with the package, its tools and the command `dualtoken` (some minutes, once)
#   make demo        every stage on real data at laptop size, then runs/demo/report.html (20 minutes, two cores)
#   make demo-long   the same stages, trained longer, in runs/demo-long (72 minutes)
#   make test        the tests            make check    linter, format, types, import rules            make clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP_FLAGS ?= -qq --disable-pip-version-check

.PHONY: install demo demo-long test check clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@echo "Installing into $(VENV): torch and its companions are some gigabytes, this takes a few minutes."
	@$(PYTHON) -c 'import sys; sys.exit("DualToken needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install $(PIP_FLAGS) -e '.[dev]'
	@touch $@

demo: install
	@$(BIN)/dualtoken run configs/tiny/demo.yaml

demo-long: install
	@$(BIN)/dualtoken run configs/tiny/demo-long.yaml

test: install
	@$(BIN)/python -m pytest -q

check: install
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check -q
	@$(BIN)/mypy
	@PYTHONPATH=. $(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
