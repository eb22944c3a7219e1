"""What nbval compares within a tolerance: the numbers of the cells tagged "trained". pytest finds this file by itself.

Numbers that come out of training differ a little from one type of processor to the next: sums are rounded in another
order, and a metric is a count over 943 users, so one user who moves across rank 10 changes HR@10 by a hundredth of it.
In a cell whose tags contain "trained" (cell metadata) a number printed with decimals agrees with the committed one if

    |new - committed| <= max(one unit of the last printed digit, 1 % of the committed number)

and its sign is the same, or both are printed as zero. Everything else stays exact there: words, whole numbers (ids,
counts, settings, ranks), nan, rows, and how many numbers there are. All other cells are compared exactly.
"""

import copy
import re
from decimal import Decimal

TAG = "trained"
RELATIVE = Decimal("0.01")

# A sign, digits with or without thousands separators, decimals, an exponent; not within a name or version: v1.5, 2.13.0.
NUMBER = re.compile(r"((?<![\w.])[-−+]?(?:\d{1,3}(?:,\d{3})+|\d+)\.\d+(?:e[-+]?\d+)?(?!\.?\d))")


def pytest_itemcollected(item):
    """Has nbval's own comparison see, in a tagged cell, the committed number for each new one that agrees with it."""
    if TAG in getattr(item, "cell", {}).get("metadata", {}).get("tags", ()):
        compare = item.compare_outputs
        item.compare_outputs = lambda new, committed: compare(agreed(new, committed, item.sanitize), committed)


def agreed(new, committed, sanitize):
    """The new outputs, with the committed number wherever a number agrees."""
    new = copy.deepcopy(new)
    for output, reference in zip(new, committed):
        pairs = [(output, reference), (output.get("data", {}), reference.get("data", {}))]
        for texts, references in pairs:
            for key in texts.keys() & references.keys():
                if isinstance(texts[key], str) and isinstance(references[key], str):
                    texts[key] = agreed_text(sanitize(texts[key]), sanitize(references[key]))
    return new


def agreed_text(new, committed):
    """The committed text, but with the new number where one does not agree; the new text if more than numbers differ."""
    parts, references = NUMBER.split(new), NUMBER.split(committed)          # words, number, words, ..., words
    if [spaced(words) for words in parts[::2]] != [spaced(words) for words in references[::2]]:
        return new
    references[1::2] = [old if agree(number, old) else number for number, old in zip(parts[1::2], references[1::2])]
    return "".join(references)


def spaced(words):
    """One space for each run of them: a table's columns are as wide as their longest number."""
    return re.sub(" +", " ", words)


def agree(new, committed):
    """Whether a number, as it was printed, is the committed one within the tolerance."""
    new, committed = (Decimal(text.replace("−", "-").replace(",", "")) for text in (new, committed))
    unit = Decimal(1).scaleb(min(new.as_tuple().exponent, committed.as_tuple().exponent))
    same_sign = new.is_signed() == committed.is_signed() or new == committed == 0
    return same_sign and abs(new - committed) <= max(unit, RELATIVE * abs(committed))
