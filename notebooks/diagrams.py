"""The diagrams of the tutorial, with the names of the code.

Figure 1 of Li et al. 2023 and Figure 2 of Zolghadr et al. 2024 show a whole model; the others show one part or one idea each.
`python notebooks/diagrams.py docs/model.svg` writes the second. A drawing is 107 units wide, for a figure of 10 inches; its
height is told to `_frame`.
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
    "validation": {"color": "#009E73", "linestyle": (0, (1, 1.5))},
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


def _area(ax, x, y, width, height):
    """A thin border around what belongs together; its lower left corner is (x, y)."""
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=0.9",
                                facecolor="none", edgecolor="0.6", linewidth=0.9, zorder=1))


def _dots(ax, x, *heights):
    for y in heights:
        ax.text(x, y, "…", ha="center", va="center", fontsize=13)


def _frame(ax, height, words, **place):
    """The empty drawing, 107 units wide, with its legend: what a line means, in words."""
    ax.set(xlim=(0, 107), ylim=(0, height), aspect="equal")
    ax.axis("off")
    lines = [Line2D([], [], linewidth=1.5, label=word, **USES[use]) for use, word in words.items()]
    if lines:
        ax.legend(handles=lines, fontsize=9, handlelength=3.2, **place)


def _pipeline(ax, noise, noise_linewidth=1.2):
    """All that the two models share: everything but the middle of `item_distributions`. noise: of the forward process."""
    words = {"always": "training and inference", "training": "training only", "inference": "inference only"}
    _frame(ax, 81, words, loc="upper left", bbox_to_anchor=(0.02, 1))
    for x, i in zip(COLUMNS, ("1", "2", None, "n")):                             # the history, from below
        if i is None:
            _dots(ax, x, 3, 25.5, 48.5)
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

    _area(ax, 2, 30.5, 100, 14.9)
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


def draw_leave_one_out(ax):
    """Notebook 1: three users' sequences by what an item is the target of, and the pairs that the first of them gives."""
    words = {"always": "in a history only", "training": "target in training",
             "validation": "target in validation: the last but one", "inference": "target in the test: the last"}
    _frame(ax, 38, words, loc="lower left", bbox_to_anchor=(0.01, 0.02))
    first = (3, 8, 1, 7, 2, 9, 4, 6, 5)
    _note(ax, 3, 36.5, "three users, their items in time order")
    for y, items in ((32, first), (26.5, (2, 6, 4, 8, 3)), (21, (9, 1, 5, 2, 7, 8, 6))):
        for place, item in enumerate(items):
            use = {0: "always", len(items) - 2: "validation", len(items) - 1: "inference"}.get(place, "training")
            _token(ax, 5 + 5 * place, y, item, use, 4)

    _note(ax, 98.2, 36.5, "target", "center")
    _note(ax, 90, 36.5, "the first user's pairs: history", "right")
    for y, last, use in ((32, 1, "training"), (26.5, 2, "training"), (18.5, 6, "training"), (11, 7, "validation"),
                         (3.5, 8, "inference")):
        for place, item in enumerate(first[:last]):
            _token(ax, 88 - 4.2 * (last - 1 - place), y, item, width=3.6)
        _arrow(ax, (90.5, y), (95.5, y), use=use)
        _token(ax, 98.2, y, first[last], use, 4)
    _dots(ax, 88, 22.7)
    _dots(ax, 98.2, 22.7)


def draw_chain(ax):
    """Notebook 2: the forward process from data to noise, above, and the reverse process back, below."""
    _frame(ax, 37, {"training": "forward", "inference": "reverse"}, loc="upper right")
    for x, label in ((6, "$x_0$"), (22, "$x_1$"), (46, "$x_{s-1}$"), (74, "$x_s$"), (101, "$x_T$")):
        _token(ax, x, 20, label)
    _dots(ax, 34, 20)
    _dots(ax, 87.5, 20)
    for low, high in ((9.5, 18.5), (25.5, 32), (36, 42.5), (49.5, 70.5), (77.5, 85.5), (89.5, 97.5)):
        _arrow(ax, (low, 21), (high, 21), use="training")
        _arrow(ax, (high, 19), (low, 19), use="inference")
    _note(ax, 60, 23.2, r"$q(x_s | x_{s-1}) = \mathcal{N}(\sqrt{a_s}\,x_{s-1},\, b_s I)$", "center", "training")
    _note(ax, 60, 16.8, r"$p(x_{s-1} | x_s)$", "center", "inference")
    _arrow(ax, (6, 22), (6, 31), (19, 31), use="training")
    _box(ax, 37, 31, 36, 5.4, r"$x_s = \sqrt{A_s}\,x_0 + \sqrt{1 - A_s}\,\epsilon$, in one jump", "q_sample", "training")
    _arrow(ax, (55, 31), (74, 31), (74, 22), use="training")
    for x, *lines in ((6, "the data", "$A_0 = 1$"), (101, r"$\mathcal{N}(0, I)$", r"$A_T \approx 0$")):
        for y, line in zip((16, 13.4), lines):
            _note(ax, x, y, line, "center")
    _arrow(ax, (74, 18), (74, 9.7), use="inference")                              # the estimate, then the posterior
    _box(ax, 79, 7, 26, 5.4, r"$\hat{x}_0 = f(x_s, s)$, an estimate", "Denoiser", "inference")
    _arrow(ax, (66, 7), (59, 7), use="inference")
    _box(ax, 40, 7, 38, 5.4, r"$x_{s-1} = c_0\,\hat{x}_0 + c_s\,x_s + \sqrt{\mathrm{var}_s}\,\epsilon'$", "posterior",
         "inference")
    _arrow(ax, (74, 13), (54, 13), (54, 9.7), use="inference")
    _arrow(ax, (46, 9.7), (46, 18), use="inference")
    names = (("$b_s$", "betas"), ("$a_s = 1 - b_s$", "alphas"), (r"$A_s = a_1 a_2 \cdots a_s$", r"alphas\_cumprod"))
    _note(ax, 21, 1.6, "      ".join(rf"{symbol}:  $\mathtt{{{code}}}$" for symbol, code in names))


def draw_item_distributions(ax):
    """Notebook 4: the noisy target comes to every position of the history, through a lambda of its own; with shapes."""
    _frame(ax, 37, {})
    for x, i in zip((13, 30, 41.5, 53), ("1", "2", None, "n")):
        if i is None:
            _dots(ax, x - 4, 21, 12, 2.5)
            continue
        _token(ax, x - 9, 21, rf"$\lambda_{i}$")
        _token(ax, x - 9, 12, f"$e_{i}$")
        for y, sign in ((21, r"$\odot$"), (12, "$+$")):
            _box(ax, x, y, 3, 3, sign)
            _arrow(ax, (x - 5.5, y), (x - 1.5, y))
        _arrow(ax, (67, 33), (x, 33), (x, 22.5))
        _arrow(ax, (x, 19.5), (x, 13.5))
        _arrow(ax, (x, 10.5), (x, 4.5))
        _token(ax, x, 2.5, f"$z_{i}$")
    _note(ax, 35, 35, "$x_s + d_s$, the same for every position", "center")
    _box(ax, 68.5, 33, 3, 3, "$+$")
    _arrow(ax, (73.5, 33), (70, 33))
    _arrow(ax, (73.5, 27), (68.5, 27), (68.5, 31.5))
    for y, label, *code in ((33, "$x_s$", "x_s  [B, d]", "q_sample(x_0, t, noise)"),
                            (27, "$d_s$", "d_s  [B, d]", "step_embedding(t)")):
        _token(ax, 77, y, label)
        for above, text in zip((1.1, -1.1), code):
            _note(ax, 81.5, y + above, text, family="monospace")
    for y, name, code in ((21, "lambda_", "draw_lambda"), (12, "embedded", "embed_history(histories)"),
                          (2.5, "z", "item_distributions")):
        _note(ax, 60, y, f"{name:9}[B, L, d]   {code}", family="monospace")


def draw_block(ax):
    """Notebook 5: `Block`, attention above and the feed-forward below, each with its LayerNorm, dropout and residual."""
    _frame(ax, 44, {"always": "training and inference", "training": "training only"}, loc="upper right", ncols=2)
    attention = ("query, key, value   [B, H, L, d/H]", "shares by key_mask  [B, H, L, L]",
                 "shares @ value      [B, H, L, d/H]", "out                 [B, L, d]")
    feed_forward = ("Linear d -> 4d      [B, L, 4d]", "GELU                [B, L, 4d]", "Linear 4d -> d      [B, L, d]")
    for y, what, name, inside in ((29.5, "multi-head attention", "attention", attention),
                                  (8, "each position alone", "feed_forward", feed_forward)):
        _token(ax, 5, y, "$x$")
        _box(ax, 23, y, 17, 5.4, "LayerNorm", f"{name}_norm")
        lines = (f"{name}: {what}", *inside)
        _box(ax, 54, y, 35, 2.5 * len(lines) + 2, "")
        for line, text in enumerate(lines):
            _note(ax, 38, y + 1.25 * (len(lines) - 1) - 2.5 * line, text, family="monospace")
        _box(ax, 81, y, 11, 5.4, "dropout", "dropout", "training")
        _box(ax, 92.5, y, 3, 3, "$+$")
        _token(ax, 102, y, "$x$")
        _note(ax, 102, y - 3.3, "[B, L, d]", "center", family="monospace")
        for low, high in ((8.5, 14.5), (31.5, 36.5), (71.5, 75.5), (86.5, 91), (94, 98.5)):
            _arrow(ax, (low, y), (high, y))
        _arrow(ax, (11, y), (11, y + 9), (92.5, y + 9), (92.5, y + 1.5))
    _arrow(ax, (102, 24.7), (102, 19.5), (5, 19.5), (5, 10))


def draw_windows(ax):
    """Notebook 14: one user's training sequence, cut into windows of at most five items in two epochs."""
    _frame(ax, 37, {"always": "read", "training": "target"}, loc="lower right", ncols=2)
    for y, epoch, sizes in ((31, "an epoch", (3, 5, 3)), (14, "another", (5, 5, 1))):
        _note(ax, 1, y, epoch)
        first, x = 1, 13
        for size in sizes:
            _area(ax, x - 3.4, y - 9.3, 6.6 * size + 0.2, 12.6)
            for item in range(first, first + size):
                _token(ax, x, y, f"$i_{{{item}}}$", width=5.4)
                _arrow(ax, (x, y - 2), (x, y - 4.7), use="training")
                _token(ax, x, y - 6.7, f"$i_{{{item + 1}}}$", "training", 5.4)
                x += 6.6
            first, x = first + size, x + 4


def draw_who_sees_whom(ax):
    """Notebook 14: who sees whom. Four prefixes, each in a pass of its own, and one causal pass over the same items."""
    _frame(ax, 27, {})
    _note(ax, 3, 25.5, "each prefix alone, bidirectional: four passes, a target each")
    _note(ax, 82, 25.5, "causal: one pass, four targets")
    x = 5
    for n, causal in ((1, False), (2, False), (3, False), (4, False), (4, True)):
        x += 3 * causal
        for query in range(1, n + 1):
            y = 6.7 + 4.4 * (n - query)
            _note(ax, x - 2.4, y, query, "right")
            _note(ax, x + 3.8 * (query - 1), 3.3, query, "center")
            for key in range(1, n + 1):
                seen = key <= query or not causal
                _box(ax, x + 3.8 * (key - 1), y, 3.4, 4, "", fill="0.7" if seen else "white", linewidth=0.8)
            if query == n or causal:
                _arrow(ax, (x + 3.8 * n - 1.9, y), (x + 3.8 * n + 1.5, y), use="training")
                _token(ax, x + 3.8 * n + 3.3, y, f"$i_{query + 1}$", "training", 3.6)
        x += 3.8 * n + 9.6
    _note(ax, 3, 0.9, "rows: the position that asks    columns: the position that answers    grey: may be seen")


def main(path):
    """Writes the drawing of DiffuRecSys, as the README shows it: the same bytes each time."""
    plt.rcParams["svg.hashsalt"] = "model"
    fig, ax = plt.subplots(figsize=(10, 7.6), layout="constrained")
    draw_diffurecsys(ax)
    fig.savefig(path, facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
