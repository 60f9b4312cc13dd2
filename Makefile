# One verb each. Needs Python 3.11+, git and make; everything else goes into .venv.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

BENCH := $(BIN)/python -m bench

.PHONY: demo test test-containers test-faults test-schedules lint bench schema constraints up help

help: ## List the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: $(READY) ## Segment real customers, complete a real survey, split a photograph, and run the textbook's coins, into output/
	rm -rf output/customer_segmentation output/survey_imputation output/image_segmentation output/coin_flips
	$(BIN)/dask-em run conf/customer_segmentation.yaml
	$(BIN)/dask-em run conf/survey_imputation.yaml
	$(BIN)/dask-em run conf/image_segmentation.yaml
	$(BIN)/dask-em run conf/coin_flips.yaml

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-faults: $(READY) ## Kill, freeze and cut off real clusters (about a quarter of an hour)
	$(BIN)/python -m pytest -m faults -n 2 --dist loadfile

test-containers: $(READY) ## Build the containers and do the demo in them, where podman and debootstrap are installed (twenty minutes)
	$(BIN)/python -m pytest -m containers tests/operate/test_compose.py

test-schedules: $(READY) ## Run the examples of scheduled runs, each with its scheduler freshly installed (about ten minutes)
	$(BIN)/python -m pytest -m schedules tests/operate/test_schedules.py

lint: $(READY) ## Check style, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell --ignore-words-list ouput,tabel,gausian,twon,notin,teh dask_em pipelines tests conf docs README.md

bench: $(READY) ## Measure one thread beside every peer that is installed (about ten minutes), and draw the figure of the README
	$(BENCH) machine
	$(BENCH) gmm
	$(BENCH) gmm --rows 500000 --dim 32 --k 16 --without Spark
	$(BENCH) gmm --rows 200000 --dim 64 --k 32 --without Spark
	$(BENCH) diagonal
	$(BENCH) classes
	$(BENCH) figure

schema: $(READY) ## Renew the JSON Schema of job files
	$(BIN)/dask-em schema > conf/job.schema.json

constraints: $(READY) ## Renew the pinned versions
	$(BIN)/uv pip compile --universal --all-extras --no-header --upgrade pyproject.toml -o constraints.txt

up: ## Start a scheduler and two workers in containers
	docker compose up --build --scale worker=2

# The stamp is younger than what it was made from, so set-up runs again only when one of the two changed.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e ".[dev]"
	touch $@
