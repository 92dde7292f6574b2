# Two commands do everything: `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: serve test fuzz soak lint lock clean

serve: $(VENV)/.serve
	@exec $(BIN)/walkin serve

# The second part looks at no clock but its own: side by side it takes half the time.
test: lint
	$(BIN)/python -m pytest --ignore=tests/fuzz --ignore=tests/soak
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder tests/soak tests/fuzz

# Longer runs of what `make test` has a short form of: ten minutes of SQL and a share of it for each
# other fuzzer; an hour of soak.
fuzz: $(VENV)/.test
	FUZZ_S=600 $(BIN)/python -m pytest tests/fuzz -s

soak: $(VENV)/.test
	SOAK_S=3600 $(BIN)/python -m pytest tests/soak -s

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
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
