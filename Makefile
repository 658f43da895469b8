# Everything starts from Python, make and git: the environment in .venv is made when first needed, and
# installed again when pyproject.toml changes. What the proofs take from npm is installed in .venv/node.

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

PROOFS = _trial_temp_proofs

.PHONY: run test proof soak screenshots check $(CHECKS) bench docs clean

run: $(VENV)/.run
	@echo '$(BIN)/twistd -n --pidfile= fileexport --root "$(ROOT)"$(if $(ARGS), $(ARGS))'
	@exec $(BIN)/twistd -n --pidfile= fileexport --root "$(ROOT)"$(if $(ARGS), $(ARGS))

test: $(VENV)/.dev
	$(TRIAL) -j2 $(UNIT_TESTS)

# The long proofs, with small counts; soak runs the same with the full counts.
# Two run at once; each leaves the figures that it prints in a file of its own.
proof: $(VENV)/.dev $(VENV)/.node
	$(TRIAL) -j2 --temp-directory=$(PROOFS) tests.proof; status=$$?; cat $(PROOFS)/*/out.log; exit $$status

soak: $(VENV)/.dev $(VENV)/.node
	FILEEXPORT_SOAK=1 $(TRIAL) tests.proof

# The images of the manual, taken again.
screenshots: $(VENV)/.dev $(VENV)/.node
	FILEEXPORT_SCREENSHOTS=1 $(TRIAL) tests.proof.test_page_images
	$(BIN)/python -m tests.screenshots

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

# Without npm, or without its registry, the tests that need it say so and are skipped.
$(VENV)/.node: tests/proof/package.json | $(VENV)/.dev
	mkdir -p $(VENV)/node
	cp tests/proof/package.json $(VENV)/node/
	cd $(VENV)/node && npm install --silent --no-audit --no-fund --ignore-scripts --no-package-lock \
		--no-update-notifier --fetch-retries=1 && touch $(abspath $@) || echo "npm has not installed the packages of $<"
