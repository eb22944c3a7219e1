"""The two diagrams of the tutorial: Figure 1 of Li et al. 2023 and Figure 2 of Zolghadr et al. 2024, with the code's names.

Both are drawn for a figure of about 10 by 7.6 inches. `python notebooks/diagrams.py docs/model.svg` writes the second.
"""

import sys

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

# What a line or a border means: by its dashes first, by its colour (Okabe-Ito) only second.
USES = {
    "always": {"color": "black", "linestyle": "-"},
    "training": {"color": "#0072B2", "linestyle": (0, (4, 2))},
    "inference": {"color": "#D55E00", "linestyle": (0, (6, 2, 1, 2))},
}
COLUMNS = (10, 22.5, 35, 47.5)      # of the positions 1, 2, ..., n
GREY, HEAVY = "0.93", 2.4


def _box(ax, x, y, width, height, label, code="", use="always", fill="white", linewidth=1.2):
    """A box around (x, y): what it stands for, and under it the name in the code."""
    ax.add_patch(FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.9",
        facecolor=fill, edgecolor=USES[use]["color"], linestyle=USES[use]["linestyle"], linewidth=linewidth, zorder=2))
    apart = 1.15 if label and code else 0
    ax.text(x, y + apart, label, ha="center", va="center", fontsize=9.5, zorder=4)
    ax.text(x, y - apart, code, ha="center", va="center", fontsize=8.5, family="monospace", zorder=4)


def _arrow(ax, *points, use="always"):
    """An arrow along straight lines through the points, its head at the last one."""
    ax.add_patch(FancyArrowPatch(
        path=Path(points), arrowstyle="-|>,head_length=4.5,head_width=2.2", shrinkA=0, shrinkB=0,
        linewidth=1.3, joinstyle="miter", zorder=3, **USES[use]))


def _note(ax, x, y, text, ha="left", use="always", **options):
    ax.text(x, y, text, ha=ha, va="center", fontsize=8.5, color=USES[use]["color"], zorder=4, **options)


def _token(ax, x, y, label, use="always", width=7):
    _box(ax, x, y, width, 4, label, use=use, fill=GREY)


def _frame(ax):
    """The empty drawing with its legend."""
    ax.set(xlim=(0, 107), ylim=(0, 81), aspect="equal")
    ax.axis("off")
    words = {"always": "training and inference", "training": "training only", "inference": "inference only"}
    lines = [Line2D([], [], linewidth=1.5, label=word, **USES[use]) for use, word in words.items()]
    ax.legend(handles=lines, loc="upper left", bbox_to_anchor=(0.02, 1), fontsize=9, handlelength=3.2)


def _pipeline(ax, noise, noise_linewidth=1.2):
    """All that the two models share: everything but the middle of `item_distributions`. noise: of the forward process."""
    _frame(ax)
    for x, i in zip(COLUMNS, ("1", "2", None, "n")):                             # the history, from below
        if i is None:
            for y in (3, 25.5, 48.5):
                ax.text(x, y, "…", ha="center", va="center", fontsize=13)
            continue
        for y, letter in ((3, "i"), (25.5, "e"), (48.5, "z")):
            _token(ax, x, y, f"${letter}_{i}$")
        for low, high in ((5, 7.8), (13.2, 15.3), (20.7, 23.5), (50.5, 54)):
            _arrow(ax, (x, low), (x, high))
    _box(ax, 42.5, 10.5, 79, 5.4, "one embedding per item", "item_embedding")
    _box(ax, 28.75, 18, 51.5, 5.4, "dropout, LayerNorm", "history_dropout, history_norm")

    _token(ax, 74, 3, "$i_{n+1}$", "training")                                   # the target and its noise
    _arrow(ax, (74, 5), (74, 7.8), use="training")
    _arrow(ax, (74, 13.2), (74, 16), use="training")
    _token(ax, 74, 18, "$x_0 = e_{n+1}$", "training", 15)
    _arrow(ax, (74, 20), (74, 22.8), use="training")
    _box(ax, 74, 25.5, 16, 5.4, "forward process", "diffusion.q_sample", "training")
    _box(ax, 94, 25.5, 16, 5.4, noise, "draw_noise", "training", linewidth=noise_linewidth)
    _arrow(ax, (86, 25.5), (82, 25.5), use="training")
    _arrow(ax, (74, 28.2), (74, 32), use="training")
    _token(ax, 74, 34, "$x_s$")

    ax.add_patch(FancyBboxPatch((2, 30.5), 100, 14.9, boxstyle="round,pad=0,rounding_size=0.9",
                                facecolor="none", edgecolor="0.6", linewidth=0.9, zorder=1))
    _note(ax, 101, 31.8, "item_distributions", "right", family="monospace")
    _arrow(ax, (74, 36), (74, 38.5))                                             # x_s + d_s, times lambda
    _box(ax, 94, 40, 14, 5.4, "$d_s$", "step_embedding")
    _arrow(ax, (94, 46.5), (94, 42.7))
    _token(ax, 94, 48.5, "$s$")
    _arrow(ax, (87, 40), (75.5, 40))
    _box(ax, 74, 40, 3, 3, "$+$")
    _arrow(ax, (72.5, 40), (65.5, 40))
    _box(ax, 64, 40, 3, 3, r"$\odot$")
    _box(ax, 64, 50, 14, 5.4, r"$\lambda_i \sim \mathcal{N}(\delta, \delta)$", "draw_lambda")
    _arrow(ax, (64, 47.3), (64, 41.5))

    _box(ax, 28.75, 58.5, 51.5, 9, "", "approximator")                            # the Transformer and what follows
    _box(ax, 28.75, 56, 47, 2.6, "", "blocks[0]: every position asks every position", fill=GREY)
    _box(ax, 28.75, 61, 47, 2.6, "", "blocks[-1]: only the last position asks", fill=GREY)
    _arrow(ax, (47.5, 63), (47.5, 66.5))
    _token(ax, 47.5, 68.5, r"$\hat{x}_0$")
    _arrow(ax, (44, 68.5), (36, 68.5), use="training")
    _box(ax, 19.5, 68.5, 33, 5.4, r"cross-entropy of $\hat{x}_0 \cdot e_j$, all items $j$", "forward", "training")
    _arrow(ax, (51, 68.5), (74, 68.5), use="inference")
    _box(ax, 84, 68.5, 20, 5.4, r"$x_{s-1}$ from $\hat{x}_0$ and $x_s$", "p_sample_loop", "inference")
    _token(ax, 84, 59.8, r"$x_T \sim \mathcal{N}(0, I)$", "inference", 15)
    _arrow(ax, (84, 61.8), (84, 65.8), use="inference")
    _arrow(ax, (94, 68.5), (104.5, 68.5), (104.5, 34), (77.5, 34), use="inference")
    _note(ax, 103.5, 54, "$s = T, \\ldots, 1$", "right", use="inference")
    _arrow(ax, (84, 71.2), (84, 74.8), use="inference")
    _note(ax, 85.4, 73, "$x_0$, after the last step", use="inference")
    _box(ax, 84, 77.5, 26, 5.4, r"rounding: the top $K$ of $x_0 \cdot e_j$", "score_items", "inference")


def draw_diffurec(ax):
    """Figure 1 of Li et al. 2023: the noisy target is added to every item of the history, a Transformer restores it."""
    _pipeline(ax, r"$\epsilon \sim \mathcal{N}(0, I)$")
    _box(ax, 28.75, 40, 51.5, 6, r"the sum:  $z_i = e_i + \lambda_i \odot (x_s + d_s)$")
    for x in (COLUMNS[0], COLUMNS[1], COLUMNS[3]):
        _arrow(ax, (x, 27.5), (x, 37))
        _arrow(ax, (x, 43), (x, 46.5))
    _arrow(ax, (62.5, 40), (54.5, 40))


def draw_diffurecsys(ax):
    """Figure 2 of Zolghadr et al. 2024: cross-attention in place of the sum, noise with an offset in training.

    What differs from DiffuRec has a heavy border.
    """
    _pipeline(ax, r"$\epsilon \sim \mathcal{N}(0.1\,\mathbf{1}, I)$", HEAVY)
    _box(ax, 31.5, 36.3, 46, 5.4, r"queries $\lambda_i \odot (x_s + d_s)$, keys and values $e_1 \ldots e_n$",
         "cross_attention", linewidth=HEAVY)
    _box(ax, 31.5, 42.6, 46, 3, r"$z_i = e_i + $ what position $i$ was answered", linewidth=HEAVY)
    for x in (COLUMNS[0], COLUMNS[1], COLUMNS[3]):
        _arrow(ax, (x, 27.5), (x, 33.6))
        _arrow(ax, (x, 39), (x, 41.1))
        _arrow(ax, (x, 44.1), (x, 46.5))
    _arrow(ax, (6.5, 25.5), (4.5, 25.5), (4.5, 42.6), (8.5, 42.6))               # the residual
    _arrow(ax, (62.5, 40), (58.5, 40), (58.5, 36.3), (54.5, 36.3))


def main(path):
    """Writes the drawing of DiffuRecSys, as the README shows it: the same bytes each time."""
    plt.rcParams["svg.hashsalt"] = "model"
    fig, ax = plt.subplots(figsize=(10, 7.6), layout="constrained")
    draw_diffurecsys(ax)
    fig.savefig(path, facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
