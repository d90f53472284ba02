# Two commands set everything up on a fresh machine with Python 3.11 or newer and a C++ compiler: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE_SOURCES := $(shell find native -name '*.cc' -o -name '*.h' -o -name '*.inc') CMakeLists.txt pyproject.toml constraints.txt
JOBS ?= $(shell nproc)
# Of which each takes a gigabyte, and as many threads as torch likes.
PYTEST_WORKERS ?= 2
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# The Python module, the native tests and the wheels of all Pythons share build/native: the kernels take minutes to compile, and
# none of them depends on what is linked to them.
SHARED := build-dir=build/native build.targets=_native cmake.define.OPENWORK_PYTHON=ON cmake.define.OPENWORK_WERROR=ON
NATIVE_TESTS := -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DOPENWORK_PYTHON=OFF -DOPENWORK_TESTS=ON -DOPENWORK_WERROR=ON

# Both halves of the tests of a binary at once, each on a core: $(call halves,command,part of the names).
halves = { $(1) "$(2)" --part 1/2 & first=$$!; $(1) "$(2)" --part 2/2; second=$$?; wait $$first && exit $$second; }

.PHONY: demo test lint native-test sanitize sanitize-threads neon-test neon-test-run wheel-test clean check-tools

demo: $(VENV)/.installed
	$(BIN)/python -m examples.minilm_search $(ARGS)

test: lint native-test sanitize sanitize-threads neon-test wheel-test
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

native-test: $(VENV)/.installed
	$(BIN)/cmake -B build/native $(NATIVE_TESTS)
	$(BIN)/cmake --build build/native -j $(JOBS) --target openwork_test
	$(BIN)/python native/test/shared_symbols.py build/native
	@$(call halves,build/native/openwork_test,)

# The same tests under AddressSanitizer and UndefinedBehaviorSanitizer, with a tenth of the random problems.
sanitize: $(VENV)/.installed
	$(BIN)/cmake -B build/sanitize $(NATIVE_TESTS) -DOPENWORK_SANITIZE=address -DCMAKE_BUILD_TYPE=None
	$(BIN)/cmake --build build/sanitize -j $(JOBS)
	@$(call halves,env OPENWORK_TEST_PROBLEMS=1000 build/sanitize/openwork_test,)

# Those that start threads, which their names say, under ThreadSanitizer.
sanitize-threads: $(VENV)/.installed
	$(BIN)/cmake -B build/threads $(NATIVE_TESTS) -DOPENWORK_SANITIZE=thread -DCMAKE_BUILD_TYPE=None
	$(BIN)/cmake --build build/threads -j $(JOBS)
	build/threads/openwork_test thread

# The same tests for 64-bit Arm, cross-compiled and run under QEMU as a CPU that has the dot product and nothing later. Few
# random problems: QEMU takes twenty times as long.
neon-test: $(VENV)/.installed
	@if command -v aarch64-linux-gnu-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then $(MAKE) neon-test-run; \
	else echo "neon-test skipped: to compile and run the tests for 64-bit Arm, install a cross compiler and QEMU (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)."; fi

neon-test-run:
	$(BIN)/cmake -B build/neon $(NATIVE_TESTS) -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake
	$(BIN)/cmake --build build/neon -j $(JOBS)
	@$(call halves,env OPENWORK_ISA=neon OPENWORK_TEST_PROBLEMS=500 qemu-aarch64 -cpu neoverse-n1 -L /usr/aarch64-linux-gnu build/neon/openwork_test,)

# The wheel, built for each Python of this machine and tried in empty environments (tests/wheels).
wheel-test: $(VENV)/.installed
	$(BIN)/python tests/wheels build/wheels $(SHARED:%=--setting %)

check-tools:
	@command -v $(PYTHON) >/dev/null || { echo "openwork needs Python 3.11 or newer: install it (Debian: apt-get install python3 python3-venv), or name it with PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "openwork needs Python 3.11 or newer, and $(PYTHON) is older: name a newer one with PYTHON=."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "openwork needs Python's venv module: install it (Debian: apt-get install python3-venv)."; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "openwork compiles a Python module and needs Python's headers: install them (Debian: apt-get install python3-dev)."; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || { echo "openwork needs a C++20 compiler: install one (Debian: apt-get install g++), or name it in CXX."; exit 1; }

# An editable install: the Python sources are used where they lie, the native part is compiled once for each change to it.
$(VENV)/.installed: $(NATIVE_SOURCES) | check-tools
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt scikit-build-core nanobind cmake ninja
	$(PIP) install -c constraints.txt --no-build-isolation $(SHARED:%=--config-settings %) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build
