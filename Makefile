# Two commands do everything: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test fuzz soak chaos bench lint lock clean

serve: $(VENV)/.serve
	@exec $(BIN)/walkin serve

# What judges times runs by itself; the rest side by side, what takes longest first.
test: lint
	$(BIN)/python -m pytest -m alone
	$(BIN)/python -m pytest -m "not alone" --numprocesses=3 --dist=loadfile --no-loadscope-reorder \
	    tests/chaos tests/soak tests/fuzz tests/bench tests

# Longer runs of what `make test` has a short form of: ten minutes of SQL and a share of it for each
# other fuzzer; an hour of soak; a thousand rounds of faults; twenty minutes of measuring beside sqld, rqlite and Datasette.
fuzz: $(VENV)/.test
	FUZZ_S=600 $(BIN)/python -m pytest tests/fuzz -s

soak: $(VENV)/.test
	SOAK_S=3600 $(BIN)/python -m pytest tests/soak -s

chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pinned and hashed: an altered package is refused. The project itself is linked, not copied.
$(VENV)/.serve: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.test: $(VENV)/.serve requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@

lock:
	$(PYTHON) -m uv pip compile --quiet --upgrade --universal --generate-hashes \
	    --no-emit-index-url --no-header --python-version 3.11 \
	    --extra build pyproject.toml --output-file requirements.lock
	$(PYTHON) -m uv pip compile --quiet --upgrade --universal --generate-hashes \
	    --no-emit-index-url --no-header --python-version 3.11 \
	    --extra build --extra dev pyproject.toml --output-file requirements-dev.lock

clean:
	rm -rf $(VENV) .bench .pytest_cache .mypy_cache .ruff_cache .hypothesis
