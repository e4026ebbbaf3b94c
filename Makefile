# Two commands do everything: `make demo` and `make test`. Both set up their own environment in .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clusters install bench clean

demo: install
	$(BIN)/petaseg demo

test: install check clusters
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A real SLURM and a real browser (Debian's packages), and a real Kubernetes control plane (built once from Debian's source,
# into ~/.cache).
clusters:
	bash tests/deploy/slurm-up.sh install
	bash tests/deploy/k8s-build.sh
	bash tests/viewing/chromium.sh

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
	@echo "compiling the kernels, once: half a minute"
	$(BIN)/python -m pipeline.segmentation.warm_up
	@touch $@

clean:
	rm -rf .venv build dist demo-run
