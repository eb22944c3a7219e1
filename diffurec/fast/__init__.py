"""The fast forms, put into a model by `install`, and what training and evaluation run under.

catalogue.py: scores of a catalogue of any size; forms.py: parts of the model; processor.py: what this processor does fast.
"""

from .catalogue import catalogue_cross_entropy, item_chunks, own_scores
from .forms import FORMS, Dropout, FeedForward, TanhGELU, install, softmax, switched_off
from .processor import chosen_forms, fast_matmul, kept_memory, warn_of_emulated_bfloat16

__all__ = [
    "FORMS", "Dropout", "FeedForward", "TanhGELU", "catalogue_cross_entropy", "chosen_forms", "fast_matmul", "install",
    "item_chunks", "kept_memory", "own_scores", "softmax", "switched_off", "warn_of_emulated_bfloat16",
]
