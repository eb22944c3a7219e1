# The one way in: `make report`, `make test` and `make lab` set up .venv when needed and then do what they say.
# Set-up needs a Python 3.11 or newer and a package index, once: make PYTHON=/path/to/python3.12 takes another Python.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

# What reaches the programs of the caller's environment: where data are and are kept (DIFFUREC_DATA_DIR,
# DIFFUREC_CACHE_DIR), the number of threads and how they wait (OMP_*, GOMP_*, KMP_*, MKL_*, OPENBLAS_*), which
# instructions are used (ATEN_CPU_CAPABILITY, ONEDNN_MAX_CPU_ISA, MKL_ENABLE_INSTRUCTIONS), GPUs (CUDA_*, NVIDIA_*,
# PYTORCH_*ALLOC_CONF), and what the system needs (PATH, HOME, TMPDIR, LANG, proxies, ...). Whatever else would change
# what is computed, drawn, printed or tested does not: packages, kernels, start-up files, a process group of torchrun.
CALLERS := PYTHON% PYTEST% HYPOTHESIS% IPYTHON% JUPYTER% MPLBACKEND MATPLOTLIB% TORCH% PYTORCH% NPY_% NUMPY% PANDAS% \
	SCIPY% SKLEARN% TQDM% PIP_TARGET PIP_PREFIX PIP_CONSTRAINT \
	RANK LOCAL_RANK GROUP_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT
unexport $(filter-out PYTORCH%ALLOC_CONF JUPYTER_RUNTIME_DIR,$(filter $(CALLERS),$(.VARIABLES)))
export PYTHONNOUSERSITE = 1
export JUPYTER_PREFER_ENV_PATH = 1
export PIP_USER = 0
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# In their place, settings in the home directory are not read either: matplotlib's file, IPython's start-up files.
export MATPLOTLIBRC = /dev/null
export IPYTHONDIR = $(CURDIR)/$(VENV)/ipython
# Waiting threads sleep instead of spinning: beside a busy process spinning makes training ten times slower. It changes
# no result. Read when torch loads its OpenMP, GNU's on Linux and LLVM's on macOS.
OMP_WAIT_POLICY ?= passive
export OMP_WAIT_POLICY

help:
	@echo "make report      train and evaluate the small example (some minutes): reports/quickstart.html"
	@echo "make test        run the tests, then every notebook, and compare the outputs with the committed ones"
	@echo "make lint        check types and style"
	@echo "make site        write runs/site/index.html: all pages as one searchable site, and check its links"
	@echo "make test-avx2   repeat the tests of the fast forms and some notebooks as on a processor without AVX-512"
	@echo "make equations   write docs/equations.md, which line computes which equation, from the comments"
	@echo "make bad-inputs  write docs/bad-inputs.md, what is said of each bad input, from the tests"
	@echo "make layouts     write data/LAYOUTS.md, how each public data set loads, from the tests"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make bench       measure the speed (over an hour, on an idle machine): reports/benchmark"
	@echo "make gpu-check   compare a GPU with the CPU, repeat a run there, measure its speed"
	@echo "make witness     train RecTools' SASRec in an environment of its own and measure it by our metrics: reports/witness"
	@echo "make mutants     plant faults in the module and see whether the tests catch them (hours): tests/MUTANTS.md"
	@echo "make data        fetch MovieLens-100K, so that the rest works without a network"
	@echo "make help        show these lines"

# The stamp is written last and holds this folder's path. So an interrupted set-up is not taken for a whole one, nor
# that of a folder moved or copied, whose diffurec would be the one at the old place: `sound` is empty, .venv made anew.
# (-E, because what is unexported above still reaches $(shell).)
STAMP := $(VENV)/set-up-in
sound := $(shell { [ "$$(cat $(STAMP))" = "$$(pwd -P)" ] && $(RUN) -E -c 'import pip' && echo yes; } 2>/dev/null)
ifneq ($(sound),yes)
.PHONY: $(STAMP)
endif

# First what can be missing, each in one sentence. Of pip's lines those on large downloads are shown, and on failure its
# last error. A pipe's exit code is that of its last part, so pip's own goes through the pipe as a line.
$(STAMP): requirements.txt pyproject.toml
	@version=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=none; \
	case $$version in \
	none|"") echo "$(PYTHON) does not run: install Python 3.11 or newer, or name it: make PYTHON=/path/to/python3." ;; \
	[12].*|3.[0-9]|3.10) echo "$(PYTHON) is Python $$version, and 3.11 or newer is needed:" \
	"install one and name it: make PYTHON=/path/to/python3." ;; \
	*) "$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null && exit 0; \
	echo "$(PYTHON) cannot make a virtual environment, because its module venv or ensurepip is missing:" \
	"install it (on Debian and Ubuntu: apt install python3-venv)." ;; \
	esac >&2; exit 1
	@rm -f $(STAMP)
	@echo "Setting up $(VENV): several minutes and some GB the first time."
	@{ { [ "$(sound)" = yes ] || "$(PYTHON)" -m venv --clear $(VENV); } && \
	$(RUN) -u -m pip install --progress-bar off -r requirements.txt && \
	$(RUN) -u -m pip install --progress-bar off --no-deps --no-build-isolation -e . ; echo "exit code $$?"; } 2>&1 | { \
	why="The set-up failed"; \
	while IFS= read -r line; do case $$line in \
	*" MB)"|*" GB)") echo "$$line" ;; \
	"Installing collected packages"*) echo "  Installing" ;; \
	*"No space left on device"*) why="The disk is full: free some GB here and in the directory for temporary files" ;; \
	*"Retrying ("*|*"Could not fetch URL"*) \
	why="pip cannot reach a package index: connect to a network, or see to pip's proxy and index settings" ;; \
	Error*|ERROR*) last=$$line ;; \
	"exit code 0") exit 0 ;; \
	esac; done; \
	echo "$$why, then run make again.$${last:+ ($$last)}" >&2; exit 1; }
	@pwd -P > $(STAMP)

report: $(STAMP)
	@$(RUN) -m diffurec run quickstart --out reports

data: $(STAMP)
	@$(RUN) -m diffurec fetch ml-100k

NBVAL := $(RUN) -m pytest --nbval --nbval-current-env --nbval-cell-timeout=600 --durations=10 \
	--nbval-sanitize-with=notebooks/sanitize.cfg

# All parts run, whatever comes of the others; `make -j2 test` runs two at a time.
test: $(STAMP)
	@$(MAKE) --no-print-directory --keep-going test-code test-tutorial test-pages

test-code: data
	@$(RUN) -m pytest -q

# nbval takes this Python's kernel, whatever a notebook names.
test-tutorial: data
	@$(NBVAL) notebooks/*.ipynb

test-pages: data
	@failed=0; \
	$(NBVAL) notebooks/solutions notebooks/experiments docs || failed=1; \
	$(RUN) tests/notebook_figures.py || failed=1; \
	exit $$failed

# As on a processor without AVX-512: the fast forms' tests, and notebooks in a folder of their own, so that the model is
# trained so too. (Three names, because three libraries choose instructions; MKL obeys on Intel's processors alone.)
# Not in bfloat16: PyTorch asks the processor whether it has it, and oneDNN, told to do without, then refuses.
AVX2 := runs/avx2
AVX2_NOTEBOOKS := 05_the_approximator solutions/05_the_approximator
AS_AVX2 := env ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2

test-avx2: data
	@$(AS_AVX2) $(RUN) -c 'import torch; kind = torch.backends.cpu.get_cpu_capability(); print("Instructions:", kind); \
	exit("ATEN_CPU_CAPABILITY is not obeyed." if "512" in kind else 0)'
	@rm -rf $(AVX2) && mkdir -p $(AVX2) && cp -R notebooks $(AVX2) && ln -s "$(CURDIR)/reports" "$(CURDIR)/data" $(AVX2)
	@failed=0; \
	$(AS_AVX2) $(RUN) -m pytest -q -k "not bfloat16" tests/test_fast.py || failed=1; \
	$(AS_AVX2) $(NBVAL) $(AVX2_NOTEBOOKS:%=$(AVX2)/notebooks/%.ipynb) || failed=1; \
	exit $$failed

equations: $(STAMP)
	@$(RUN) tests/equations.py

lint: $(STAMP)
	@failed=0; \
	$(RUN) -m ruff check || failed=1; \
	$(RUN) -m mypy || failed=1; \
	$(VENV)/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml || failed=1; \
	exit $$failed

# Sphinx takes the notebooks' outputs as they are committed. What it warns of is an error.
site: $(STAMP)
	@rm -rf runs/site runs/doctrees runs/jupyter_execute
	@$(RUN) -m sphinx -q -W --keep-going -c docs -d runs/doctrees . runs/site
	@$(RUN) -m pytest -q tests/built_site.py
	@echo "Open runs/site/index.html."

bad-inputs: $(STAMP)
	@$(RUN) -m pytest -q --write-bad-inputs

layouts: $(STAMP)
	@$(RUN) -m pytest -q tests/test_layouts.py --write-layouts

bench: $(STAMP)
	@$(RUN) benchmarks/bench.py

gpu-check: $(STAMP)
	@$(RUN) benchmarks/gpu_check.py

# An environment of its own, because RecTools needs older packages than ours.
RECTOOLS := .venv-rectools
RECTOOLS_PINS := "rectools[torch]==0.19.0" torch==2.13.0 numpy==1.26.4 pandas==2.3.3 pytorch-lightning==2.5.2

$(RECTOOLS)/set-up: Makefile
	@"$(PYTHON)" -m venv --clear $(RECTOOLS)
	@$(RECTOOLS)/bin/python -m pip install --quiet $(RECTOOLS_PINS)
	@touch $@

witness: data $(RECTOOLS)/set-up
	@$(RUN) benchmarks/witness.py

# The tool is no requirement of the tests; its parts that are used need these alone. It works in a copy of the checkout.
# make mutants MUTANTS="splits metrics --sample 50" takes some modules and some faults.
mutants: $(STAMP)
	@$(RUN) -m pip install --quiet --no-deps cosmic-ray==8.7.0 stevedore==5.10.0
	@$(RUN) tests/mutants.py $(MUTANTS)

lab: $(STAMP)
	@$(RUN) -m jupyterlab notebooks

.PHONY: help report data test test-code test-tutorial test-pages lint site test-avx2 equations bad-inputs layouts bench gpu-check witness mutants lab
