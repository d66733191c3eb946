# make serve: install, make development certificates if there are none, serve with config.toml
# make test:  everything: static checks, fast tests, then tests with real peers (Orthanc, DCMTK)
# make check: the fast part only: static checks, documentation, tests without real peers
# make docs:  the documentation as a site, in build/docs; a link that leads nowhere fails

PYTHON ?= python3
BIN := .venv/bin
# The fast tests sync thousands of small files: in memory, where there is room, so that a busy disk does not make minutes of them.
MEMORY = $(shell test -w /dev/shm && test "$$(df -kP /dev/shm | awk 'END { print $$4 }')" -gt 2000000 && echo TMPDIR=/dev/shm)

.PHONY: serve test check lint docs fast certs compose-certs clean

serve: .venv/installed certs/gateway.crt
	exec $(BIN)/gateway serve

certs: certs/gateway.crt

certs/gateway.crt: | .venv/installed
	$(BIN)/gateway certs

# The certificates that docker-compose.yml mounts.
compose-certs: certs/gateway.crt
	for name in orthanc-a orthanc-b orthanc-c; do test -f certs/$$name.crt || $(BIN)/gateway certs --for $$name || exit; done

# Three files at a time: tests with real peers mostly wait for them, and those of one file share theirs.
test: check
	sh tests/install-peers.sh
	$(BIN)/pytest -m "peers or slow" -n 3 --dist loadfile

check: lint docs fast

lint: .venv/tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/documented
	$(BIN)/mkdocs build --strict --quiet

# Side by side: these tests wait more than they compute.
# Continuous integration measures branch coverage here and keeps its floor; it costs half as much CPU again.
COVERAGE ?= $(if $(CI),--cov --cov-report=)

fast: .venv/tested
	$(MEMORY) $(BIN)/pytest -m "not peers and not slow" -n 3 --dist worksteal -o tmp_path_retention_count=1 $(COVERAGE)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (make PYTHON=…)" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "no virtual environment: on Debian and Ubuntu the package python3-venv has what is missing" >&2; exit 1; }

.venv/installed: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/tested: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs,test]'
	@touch $@ .venv/documented .venv/installed

.venv/documented: pyproject.toml | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ .venv/installed

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
