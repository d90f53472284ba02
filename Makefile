# Two commands set everything up on a fresh machine with Python 3.11 or newer and a C++ compiler: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(shell find native -name '*.cc' -o -name '*.h' -o -name '*.inc') CMakeLists.txt pyproject.toml
JOBS ?= $(shell nproc)

.PHONY: demo test lint native-test sanitize clean check-tools

demo: $(VENV)/.installed
	$(BIN)/python -m examples.minilm_search $(ARGS)

test: lint native-test sanitize
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

native-test: $(VENV)/.installed
	$(BIN)/cmake -S . -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DOPENWORK_PYTHON=OFF -DOPENWORK_TESTS=ON
	$(BIN)/cmake --build build/native -j $(JOBS)
	build/native/openwork_test

# The same tests under AddressSanitizer and UndefinedBehaviorSanitizer.
sanitize: $(VENV)/.installed
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DOPENWORK_PYTHON=OFF -DOPENWORK_TESTS=ON -DOPENWORK_SANITIZE=ON -DCMAKE_BUILD_TYPE=None
	$(BIN)/cmake --build build/sanitize -j $(JOBS)
	build/sanitize/openwork_test

check-tools:
	@command -v $(PYTHON) >/dev/null || { echo "openwork needs Python 3.11 or newer: install it (Debian: apt-get install python3 python3-venv), or name it with PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "openwork needs Python 3.11 or newer, and $(PYTHON) is older: name a newer one with PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "openwork needs Python's venv module: install it (Debian: apt-get install python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "openwork compiles a Python module and needs Python's headers: install them (Debian: apt-get install python3-dev)."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "openwork needs a C++20 compiler: install one (Debian: apt-get install g++), or name it in CXX."; exit 1; }

# An editable install: the Python sources are used where they lie, the native part is compiled once for each change to it.
$(VENV)/.installed: $(NATIVE_SOURCES) | check-tools
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "scikit-build-core>=0.11" "nanobind>=2.4" "cmake>=3.20" ninja
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build
