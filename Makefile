# make demo: see it work. make test: everything that must hold. make parity: all that is compared with scrapy crawl.
# They make the environment if need be.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOWEST ?= .venv-lowest
# Tests mostly wait for processes; tests/conftest.py says which stay together.
PYTEST := -m pytest -n 3 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-long chaos bench parity scrapy-tests test-lowest lint clean

$(VENV)/installed: setup.cfg pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vscrapy needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(LOWEST)/installed: setup.cfg tests/lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint tests/lowest.txt \
		--editable '.[test]'
	touch $@

demo: $(VENV)/installed
	./demo.sh $(BIN)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python $(PYTEST) -m 'not parity and not long'
	$(MAKE) test-lowest

# What waits for turns of half a minute, and the like.
test-long: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m long tests

# Crawls in which things break, until N faults have struck; SEED=7 for the same again, CRAWL=3 for one of these alone.
chaos: $(VENV)/installed
	$(BIN)/python -m tests.chaos.run $(if $(N),--faults $(N)) $(if $(SEED),--seed $(SEED)) $(if $(CRAWL),--crawl $(CRAWL))

# Against scrapy crawl on this machine; benchmarks/RESULTS.md is made anew. PART="speed start": these alone.
bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.run $(if $(PAGES),--pages $(PAGES)) $(if $(RUNS),--runs $(RUNS)) $(if $(PART),--only $(PART))

# Every case with scrapy crawl and with vscrapy crawl; the table in the document is made anew.
parity: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 tests/parity --parity-table docs/compatibility.md

# Scrapy's own tests, with vscrapy's scheduler and stats; SCRAPY=2.13.0 for another version than the installed one,
# REACTOR=default or none for another reactor than asyncio's.
scrapy-tests: $(VENV)/installed
	$(BIN)/python tests/scrapy_suite/run.py $(if $(SCRAPY),--scrapy $(SCRAPY)) $(if $(REACTOR),--reactor $(REACTOR))

# The oldest versions that setup.cfg allows, on what depends on them most.
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest -n 2 tests/integration/test_crawl.py tests/integration/test_origin.py \
		tests/integration/test_robots.py -k 'outcome or origin or robots'

clean:
	rm -rf $(VENV) $(LOWEST) .scrapy-tests demo-output .mypy_cache .ruff_cache .pytest_cache
