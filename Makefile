# make demo    build an edge site on this machine and update it three ways (root)
# make test    lint, types, unit and system tests
# make fuzz    search the parsers for inputs that break them; FUZZ="--seconds 60 --only manifest" passes options
# make mutants changes the decisions in small ways and tells which no test notices; MUTANTS="--minutes 10 --only pace"
# make deb     the Debian packages of node and seeder, for amd64 and arm64, into build/
# make deb-check  build them twice, compare, lintian, start each (arm64 under qemu; root)
# make clients build containerd 2 and oras, which some tests pull with, into build/clients/
# Also: setup, lint, unit, bench, docs (docs/configuration.md).   DEMO="--nodes 4 --json build/demo.json" passes options to the demo.

PY := .venv/bin/python
# Even where the environment says otherwise: a run that must compile every module, and every assertion of
# every test, in each of its processes costs a quarter more.
unit test: export PYTHONDONTWRITEBYTECODE :=
.PHONY: setup lint unit test fuzz demo bench docs deb deb-check clients mutants

setup:
	@packaging/setup.sh

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/mypy packaging/deb

unit: setup
	$(PY) -m pytest -q -n 2 --dist worksteal -m "not system and not slow"

# System tests own the machine's network while they run: one after the other.
test: lint
	@failed=0; $(PY) -m pytest -q -n 2 --dist worksteal -m "not system and not slow" || failed=1; $(PY) -m pytest -m "system and not slow" || failed=1; exit $$failed

fuzz: setup
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-fuzz.lock
	@$(PY) -m tests.fuzz $(FUZZ)

mutants: setup
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-mutants.lock
	@$(PY) -m tests.mutants $(MUTANTS)

demo: setup
	@$(PY) -m benchmarks demo $(DEMO)

bench: setup
	@$(PY) -m benchmarks matrix $(BENCH)

docs: setup
	@$(PY) packaging/configuration.py

deb: setup
	@$(PY) packaging/deb/build.py $(DEB)

clients:
	@packaging/clients.sh

deb-check: setup
	@$(PY) packaging/deb/check.py
