# Two commands matter: `make reports` and `make test`. Both set themselves up.
PYTHON ?= python3
BIN := .venv/bin
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))

.PHONY: reports test slow notebooks lab bench lint clean

reports: .venv/.installed
	$(BIN)/moola run

test: .venv/.installed
	$(BIN)/python -m pytest -m "not slow and not gpu"
	$(BIN)/python -m pytest -p no:cacheprovider --nbval-lax --nbval-current-env --nbval-cell-timeout=300 $(NOTEBOOKS)

slow: .venv/.installed
	$(BIN)/python -m pytest -m "slow and not gpu"

# Execute the notebooks in place at quick scale and strip what belongs to one machine.
notebooks: .venv/.installed
	$(BIN)/python notebooks/execute.py

lab: .venv/.installed
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Removes what can be made again; never reports/ or data/.
clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch first: the pinned version, before anything else can ask for another.
.venv/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
