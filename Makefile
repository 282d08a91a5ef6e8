# `make` lists what there is. Everything runs in .venv, which is built when it is needed.
# GNU make and BSD make read it alike, so it has no function of either.

VENV ?= .venv
# Both are looked for if they are not given: the first that is in PATH, and all.
PYTHON ?=
PYTHONS ?=

BIN = $(VENV)/bin
# Compiled modules are kept, also where the environment forbids it: the tests start many processes.
RUN = PYTHONDONTWRITEBYTECODE= $(BIN)/python
EXTRAS ?= [dev]
READY = $(VENV)/.ready
CODE = src tests demos benchmarks release
# Not asked: to simplify a nursery (112), to declare startable functions (114), to make an async
# function plain because it awaits nothing (124), what ruff finds in less time (300, its RUF006), and
# the opinions that are off by default (9xx).
ASYNC = --anyio --disable ASYNC112,ASYNC114,ASYNC124,ASYNC300,ASYNC9
# The programs in these folders are wrong on purpose, or odd.
ODD = ^tests/(lab|primitives|proofs|zoo)/

# A make within make, of which GNU make tells nothing.
AGAIN = GNUMAKEFLAGS=--no-print-directory $(MAKE)

.PHONY: help demo demo-here test quick prove report report-full soak test-all check lint types \
	coverage smoke bench bench-full mutate mutants fix docs site pages release-check \
	release-check-here clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | tr '|' '\t' | expand -t 20

# The demos need no tool of the developers, only the package: a first look builds a small venv.
demo:  ## see what a wakeup policy costs
	@if test -e $(READY); then $(BIN)/mbufpools demo; else \
		$(AGAIN) VENV=.venv-demo EXTRAS= demo-here; fi

demo-here: $(READY)
	$(BIN)/mbufpools demo

test: $(READY)  ## the tests, on asyncio and on trio, by two processes (JOBS=n for another number)
	$(RUN) -m pytest $(SPREAD)

# The core on one backend, without the tests that start processes or run random programs for long.
NOT_QUICK = tests/core/test_fork.py tests/core/test_stateful.py \
	tests/core/test_stateful_planted.py tests/core/test_injection.py tests/core/test_threads.py \
	tests/core/test_deadlocks.py tests/core/test_portability.py
quick: $(READY)  ## the core's tests on asyncio, in a minute
	$(RUN) -m pytest $(SPREAD) -k "not trio" tests/core tests/lab/test_declare.py \
		$(NOT_QUICK:%=--ignore=%)

prove: $(READY)  ## the long proofs, of which `make test` runs a quick form
	$(RUN) -m pytest -m prove
	$(BIN)/mbufpools smp --deep

JOBS ?= 2
# A process that has run out of tests takes some of another's.
SPREAD = --numprocesses=$(JOBS) --dist=worksteal

report: $(READY)  ## the experiment in short, three seeds: build/report/report.html
	$(BIN)/mbufpools compare --seeds 3 --out build/report

report-full: $(READY)  ## the experiment with 20 seeds, and the results that docs/ keeps
	$(BIN)/mbufpools compare --seeds 20 --out build/report-full --pack docs/results.jsonl.xz
	cp build/report-full/hero.svg docs/hero.svg
	$(BIN)/mbufpools compare --results docs/results.jsonl.xz --mail > docs/mail.txt
	$(RUN) docs/produce.py docs/answers.md README.md

SEED ?=
soak: $(READY)  ## a million random operations on each backend (SEED=n to say which)
	seed="$(SEED)" && seed=$${seed:-$$(date +%s)} && \
		$(BIN)/python -m tests.soak --seed $$seed && \
		$(BIN)/python -m tests.soak --seed $$seed --backend trio

# Where a Python is looked for: .ci/pythons. All are tested, even if one of the first fails.
test-all:  ## the tests on every Python found (PYTHONS="path path" to say which)
	@failed= tested= given="$(PYTHONS)"; for python in $${given:-$$(.ci/pythons)}; do \
		version=$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "== Python $$version, $$python"; tested="$$tested $$python"; \
		$(AGAIN) test VENV=.venv-$$version PYTHON=$$python || \
			failed="$$failed $$version"; \
	done; \
	echo "== Tested with:$$tested. Failed with:$${failed:- none}."; test -z "$$failed"

check: lint types test smoke demo site  ## all that must hold before a change is merged

lint: $(READY)  ## style, and rules for async code
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	grep -rlE --include='*.py' 'async (def|for|with) |await |from (anyio|asyncio|trio) import' \
		$(CODE) | grep -vE '$(ODD)' | xargs -n 12 -P $(JOBS) $(BIN)/flake8-async $(ASYNC)

types: $(READY)  ## mypy --strict
	$(BIN)/mypy

# Left out of the coverage: what only runs other programs, or the same code a great many times, which
# the tracer would make several times slower, and what sets a tracer of its own. A file of
# tests/ is named, or a folder, or a test.
UNTRACED = demokit/test_demos.py traces primitives proofs soak zoo \
	core/test_stateful.py core/test_stateful_planted.py core/test_injection.py \
	core/test_threads.py lab/test_claims.py \
	lab/test_no_false_alarm.py lab/test_dpor.py project/test_docs.py smp/test_model.py \
	project/test_examples.py::test_the_tests_of_the_desk_end_as_the_tutorial_says \
	cli/test_cli.py::test_stat_of_every_demo_has_the_kernel_s_columns_within_80 \
	lab/test_dpor_sees.py::test_dpor_sees_what_every_order_of_generated_callbacks_shows \
	smp/test_smp.py::test_a_broken_rule_fails \
	smp/test_smp.py::test_a_correct_rule_fails_in_no_schedule_of_two_and_three_cpus \
	smp/test_smp.py::test_a_verdict_that_is_not_as_expected_fails_the_command \
	smp/test_smp.py::test_every_story_fits_the_terminal_and_ends_with_the_failure \
	smp/test_smp.py::test_json_is_one_object_a_variant \
	smp/test_smp.py::test_the_ending_counts_what_was_explored \
	smp/test_smp.py::test_the_table_has_a_row_for_each_variant \
	smp/test_smp.py::test_where_it_fails_the_cured_kernel_does_not
coverage: $(READY)  ## the tests again, and which branches they miss
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(SPREAD) $(UNTRACED:%=--deselect=tests/%)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# The smoke form measures too little to judge: it shows in seconds that every row can be measured.
smoke: $(READY)
	$(RUN) -m benchmarks --form smoke

bench: $(READY)  ## what the library costs beside its peers, in minutes
	$(RUN) -m benchmarks

RECORD = docs/benchmarks.json
bench-full: $(READY)  ## the same in full, kept in docs/benchmarks.json; then make docs
	$(RUN) -m benchmarks --form full --json $(RECORD)

# On the newest Python found: on 3.11 the garbage collector may run inside the recorder of mutmut, and
# that crashes the interpreter.
mutate:  ## change the core bit by bit, and see which changes no test finds
	@$(AGAIN) mutants VENV=.venv-mutate EXTRAS='[mutate]' PYTHON="$$(.ci/pythons | tail -n 1)"

mutants: $(READY)
	rm -rf mutants
	nice $(BIN)/python docs/mutants.py

fix: $(READY)  ## put the code into shape
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

docs: $(READY)  ## run the programs whose output the documents show
	$(RUN) docs/produce.py

# In an environment of its own: the tests need no Sphinx, and run on Pythons that Sphinx has left.
site:  ## the documentation as a site, build/site/index.html; a warning is an error
	@$(AGAIN) pages VENV=.venv-docs EXTRAS='[docs]'

pages: $(READY)
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/site

# The tools of a release need an environment of their own. Nothing is published.
release-check:  ## build the package, check it, and install it into clean environments of each Python
	@$(AGAIN) release-check-here VENV=.venv-release EXTRAS='[release]'

release-check-here: $(READY)
	$(BIN)/python -m release $(PYTHONS:%=--python=%)

clean:  ## remove all that was made
	rm -rf .venv .venv-* build dist htmlcov mutants .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache
	find $(CODE) docs -name __pycache__ -prune -exec rm -rf {} +

# A Python that is found must run, be new enough and be able to make a venv.
RUNS = import sys, ensurepip; sys.exit(sys.version_info < (3, 11))
$(READY): pyproject.toml
	@test -x $(BIN)/python || { given="$(PYTHON)"; \
	for python in $${given:-python3 python3.14 python3.13 python3.12 python3.11}; do \
		if $$python -c '$(RUNS)' >/dev/null 2>&1; then exec $$python -m venv $(VENV); fi; done; \
	echo "error: no Python 3.11 or later that can make a venv; install one, or:" \
		"make PYTHON=/path/to/python3" >&2; exit 1; }
	PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(BIN)/python -m pip install --quiet --editable '.$(EXTRAS)'
	@touch $@
