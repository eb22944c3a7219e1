"""What every room stands on: whole numbers, random streams, files written whole, one process or several."""

import torch

if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
    raise ImportError(f"diffurec needs torch 2.9 or newer, and this is torch {torch.__version__}: pip install 'torch>=2.9'.")
