"""The kernels that run the notebooks: this interpreter, in an environment that is said here by name.

Nothing else of the caller's environment reaches them, because much of it changes what they compute or draw: MPLBACKEND
ends all figures, PYTHONPATH and PYTHONSTARTUP bring other code, COLUMNS breaks tables elsewhere, TORCH_LOGS prints.
"""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

DATA = ("DIFFUREC_DATA_DIR", "DIFFUREC_CACHE_DIR")
REACHING = (
    *DATA,
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY",    # threads
    "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUBLAS_WORKSPACE_CONFIG",             # GPUs
    "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",             # to act as another processor
    # What a process needs to live, and to reach a network
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "VIRTUAL_ENV", "CONDA_PREFIX",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
    "ALL_PROXY",
    "SYSTEMROOT", "COMSPEC", "PATHEXT", "TEMP", "TMP", "USERPROFILE", "APPDATA", "LOCALAPPDATA",    # the same on Windows
)
PIP = re.compile("PIP_")        # a data set can come out of a wheel


def environment(caller: Mapping[str, str], settings: Path) -> dict[str, str]:
    """The variables of a kernel: those named above as `caller` has them, and instead of settings in the home directory
    matplotlib's own and those of IPython in the directory `settings`, an empty one.

    Threads that wait for others do not spin (OMP_WAIT_POLICY), unless the caller wants it: on a busy machine that is
    ten times slower, and the results are the same to the last bit.
    """
    kept = {name: value for name, value in caller.items() if name in REACHING or PIP.match(name)}
    for name in DATA:
        if kept.get(name):
            kept[name] = str(Path(kept[name]).resolve())        # the kernels have another working directory
    fixed = {"IPYTHONDIR": str(settings), "PYTHONNOUSERSITE": "1", "DIFFUREC_CALLED_FROM": os.getcwd()}
    if (matplotlib := find_spec("matplotlib")) and matplotlib.origin:
        fixed["MATPLOTLIBRC"] = str(Path(matplotlib.origin).parent / "mpl-data" / "matplotlibrc")
    return {"OMP_WAIT_POLICY": "passive", **kept, **fixed}


class Kernels:
    """The kernels of one launch, with the variables `more` beside those of `environment`.

    They run with the interpreter that runs this module, whatever "python3" is installed as for the user. After stop(),
    which may be called from a signal handler, none runs and none starts.
    """

    def __init__(self, more: dict[str, str]) -> None:
        self.more = more
        self.stopped = False
        self.processes: list[Popen] = []
        self.settings = TemporaryDirectory(prefix="diffurec-", ignore_cleanup_errors=True)      # goes with this object
        self.manager = type("Manager", (ThisInterpreter,), {"kernels": self})   # papermill takes a class of managers

    def stop(self, *_: object) -> None:
        self.stopped = True         # first: a kernel that starts meanwhile is seen either there or here
        for process in list(self.processes):
            if process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    kernel = psutil.Process(process.pid)
                    for one in [kernel, *kernel.children(recursive=True)]:
                        with suppress(psutil.NoSuchProcess):
                            one.kill()


class ThisInterpreter(AsyncKernelManager):
    """The manager of one kernel of `kernels`."""

    kernels: Kernels

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict())

    async def start_kernel(self, **options: Any) -> None:       # type: ignore[override]    # as AsyncKernelManager's
        kernels = self.kernels
        await super().start_kernel(**options, env=environment(os.environ, Path(kernels.settings.name)) | kernels.more)
        kernels.processes.append(self.provisioner.process)      # type: ignore[union-attr]  # the local one's
        if kernels.stopped:
            kernels.stop()
