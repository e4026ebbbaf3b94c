# Two commands do everything: `make demo` and `make test`. Both set up their own environment in .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check install bench clean clusters

demo: install
	$(BIN)/petaseg demo

test: install check clusters
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The Kubernetes control plane on which tests submit runs: built once, in ~/.cache; seven minutes on two cores.
clusters:
	@tests/deploy/k8s-build.sh > /dev/null

bench: install
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[benchmark]'
	for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "petaseg needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "this Python cannot make environments; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist demo-run
