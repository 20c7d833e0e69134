PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint docs bench clean

EXAMPLES := $(patsubst examples/%.py,build/examples/%.png,$(wildcard examples/*.py))
LIBRARY := $(shell find latent_flows -name '*.py')

demo: $(READY)  ## Train a VAE of sprites, learn potential flows of it and draw what they do.
	$(BIN)/python -m experiments.train_vae sprites-apart
	$(BIN)/python -m experiments.potential_flows demo

# Most of the time of tests is spent on compiling: the quick ones do with less of it, and with XLA's
# older code generator, which takes half the time and memory. It must not split its programs, or
# some come out wrong. Flags that XLA does not know would end every process, so they are tried first.
OLDER := --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1
KNOWN = $(shell XLA_FLAGS='$(OLDER)' $(BIN)/python -c 'import jax; jax.devices()' 2>/dev/null \
  && echo '$(OLDER)')

# A program is compiled once for all processes, and for the next time.
COMPILED := JAX_COMPILATION_CACHE_DIR='$(CURDIR)/build/compiled' \
  JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0

test: $(READY)  ## Every test that is not marked slow.
	$(COMPILED) JAX_DISABLE_MOST_OPTIMIZATIONS=1 XLA_FLAGS="$$XLA_FLAGS $(KNOWN)" \
	  $(BIN)/python -m pytest -n 2 --dist loadfile

# Annotations are checked by the quick ones: here what users run is tested as it is.
test-all: $(READY)  ## The slow tests too.
	$(COMPILED) $(BIN)/python -m pytest -n 2 --dist loadfile -o addopts=--doctest-modules

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY) $(EXAMPLES)  ## The site, in build/site; any warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

# An example is run again whenever it or the library has changed.
build/examples/%.png: examples/%.py $(LIBRARY) | $(READY)
	@mkdir -p $(@D)
	MPLBACKEND=agg $(BIN)/python $< $(@D)

bench: $(READY)  ## Ratios in build/bench/bench.md, within 20 minutes; peers need the extra `peers`.
	$(BIN)/python -m benchmarks

# Rebuilt whenever pyproject.toml is newer than the environment.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "latent_flows needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,docs]'
	@touch $@

clean:
	rm -rf $(VENV) runs build
