# Everything starts from Python, make and git: the environment in .venv is made when first needed, and
# installed again when pyproject.toml changes.

PYTHON = python3
VENV = .venv
ROOT = .
ARGS =
CASES =

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
TRIAL = $(BIN)/python -m twisted.trial
UNIT_TESTS = $(patsubst tests/%.py,tests.%,$(wildcard tests/test_*.py))
CHECKS = check-lint check-format check-types check-imports check-banned

.PHONY: run test proof soak check $(CHECKS) bench docs clean

run: $(VENV)/.run
	@echo '$(BIN)/twistd -n --pidfile= fileexport --root "$(ROOT)"$(if $(ARGS), $(ARGS))'
	@exec $(BIN)/twistd -n --pidfile= fileexport --root "$(ROOT)"$(if $(ARGS), $(ARGS))

test: $(VENV)/.dev
	$(TRIAL) -j2 $(UNIT_TESTS)

# The long proofs, with small counts; soak runs the same with the full counts.
proof: $(VENV)/.dev
	$(TRIAL) tests.proof

soak: $(VENV)/.dev
	FILEEXPORT_SOAK=1 $(TRIAL) tests.proof

check: $(CHECKS)

check-lint: $(VENV)/.dev
	$(BIN)/ruff check .
	@echo "passed: $@"

check-format: $(VENV)/.dev
	$(BIN)/ruff format --check .
	@echo "passed: $@"

check-types: $(VENV)/.dev
	$(BIN)/mypy
	@echo "passed: $@"

check-imports: $(VENV)/.dev
	$(BIN)/lint-imports
	@echo "passed: $@"

check-banned: $(VENV)/.dev
	$(BIN)/python tools/banned_calls.py src/fileexport
	@echo "passed: $@"

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks $(CASES)

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "passed: $@"

clean:
	rm -rf $(VENV) build dist docs/_build _trial_temp* .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f twisted/plugins/dropin.cache
	find src tests benchmarks tools twisted -name __pycache__ -prune -exec rm -rf {} +

# The last call writes Twisted's cache of plugins, so that the first start need not; it may fail.
$(VENV)/.run: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e .
	@$(BIN)/twistd --help >/dev/null 2>&1 || true
	@touch $@

$(VENV)/.dev: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -e '.[test,dev,docs]'
	@touch $(VENV)/.run $@
