"""How much faster than a plain padded implementation of the same model? All sides are timed in one run.

    python tests/speed.py amazon-beauty

The plain side is written as the released code is: every history padded to L, attention and GELU by their formulas, all
positions in every block, batches in random order, a sort of all scores to rank. A second plain side differs from it by
torch's own GELU, which makes much of the difference on a CPU. Both have the same weights and, as an assertion below
checks, give the same predictions. Settings of Li et al. 2023: L = 50, d = 128, 4 blocks, batch 512, 32 reverse steps.
"""

import argparse
import math
import time
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F

from diffurec import DiffuRec, ModelConfig, load_dataset
from diffurec.evaluation import expected_ranks
from diffurec.splits import leave_one_out, length_batches

BATCH = 512


def gelu_by_formula(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def torch_gelu(x):
    return F.gelu(x, approximate="tanh")


def plain_block(block, x, mask, gelu):
    """x: [B, L, d]; mask: [B, L], True at real items -> [B, L, d], every position computed."""
    attention, (batch, length, d) = block.attention, x.shape
    heads, normed = attention.num_heads, block.attention_norm(x)
    key, value = attention.key_value(normed).chunk(2, dim=-1)
    query, key, value = (
        y.view(batch, length, heads, d // heads).transpose(1, 2) for y in (attention.query(normed), key, value)
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(d // heads)                 # [B, H, L, L]
    shares = scores.masked_fill(~mask[:, None, None, :], -1e9).softmax(-1)
    x = x + block.dropout(attention.out((shares @ value).transpose(1, 2).reshape(batch, length, d)))
    widen, _, narrow = block.feed_forward
    return x + block.dropout(narrow(gelu(widen(block.feed_forward_norm(x)))))


def plain_x_start(gelu, model, embedded, mask, x_t, t):
    """As DiffuRec.predict_x_start: [B, L, d], [B, L], [B, d], [B] -> [B, d]."""
    z = embedded + model.draw_lambda(embedded.shape) * (x_t + model.step_embedding(t)).unsqueeze(1)
    for block in model.approximator.blocks:
        z = plain_block(block, z, mask, gelu)
    return model.approximator.norm(model.approximator.dropout(z))[:, -1]


def plain_embed(model, histories):
    return model.history_norm(model.history_dropout(model.item_embedding(histories))), histories != 0


def train_step(model, optimizer, loss):
    optimizer.zero_grad()
    loss.mean().backward()
    optimizer.step()


def draw_steps(model, size):
    return torch.randint(model.diffusion.num_steps, (size,)), torch.randn(size, model.config.hidden_size)


def plain_train(gelu, model, optimizer, histories, targets):
    t, noise = draw_steps(model, len(targets))
    x_t = model.diffusion.q_sample(model.item_embedding(targets), t, noise)
    x_start = plain_x_start(gelu, model, *plain_embed(model, histories), x_t, t)
    scores = x_start @ model.item_embedding.weight.T                             # [B, I + 1]
    train_step(model, optimizer, F.cross_entropy(scores[:, 1:], targets - 1))


def fast_train(model, optimizer, histories, targets):
    train_step(model, optimizer, model(histories, targets, *draw_steps(model, len(targets))))


@torch.no_grad()
def plain_rank(gelu, model, histories, targets):
    embedded, mask = plain_embed(model, histories)
    x_t = torch.randn(len(histories), model.config.hidden_size)
    prediction = model.diffusion.p_sample_loop(lambda x, t: plain_x_start(gelu, model, embedded, mask, x, t), x_t)
    order = (prediction @ model.item_embedding.weight[1:].T).argsort(dim=1, descending=True)
    return (order == (targets - 1).unsqueeze(1)).int().argmax(dim=1) + 1


@torch.no_grad()
def fast_rank(model, histories, targets):
    return expected_ranks(model, model.predict(histories), targets)


def rates(side, run, examples, batches, length_of):
    """Examples per second of each batch."""
    found = []
    for index in batches:
        histories, targets = examples.gather(index, length_of(index))
        start = time.perf_counter()
        run(histories, targets)
        found.append((len(index), time.perf_counter() - start))
    size, seconds = (sum(column) for column in zip(*found))
    print(f"    {side}: {size / seconds:,.0f} a second over {size:,}", flush=True)
    return size / seconds


def compare(name, plain, fast, examples, max_length, rounds):
    """Rounds of all sides in turn, on all kinds of lengths; the median of the ratios to each plain side."""
    torch.manual_seed(0)
    order = torch.randperm(len(examples))
    sorted_batches = length_batches(examples.lengths, BATCH, torch.Generator().manual_seed(0))
    print(f"{name}:")
    ratios = {side: [] for side in plain}
    for r in range(rounds):
        batch = [order[r * BATCH:(r + 1) * BATCH]]
        slow = {side: rates(side, run, examples, batch, lambda index: max_length) for side, run in plain.items()}
        part = sorted_batches[r::rounds][:40]
        ours = rates("ours", fast, examples, part, lambda index: int(examples.lengths[index].max()))
        for side in plain:
            ratios[side].append(ours / slow[side])
    for side, found in ratios.items():
        listed = ", ".join(f"{ratio:.1f}" for ratio in sorted(found))
        print(f"  {median(found):.1f} times as fast as {side} (median of {rounds}: {listed})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", default="amazon-beauty")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    data = load_dataset(arguments.dataset)
    config = ModelConfig()
    torch.manual_seed(0)
    model = DiffuRec(data.num_items, config)
    print(f"{data.name}, L = {config.max_length}, d = {config.hidden_size}, {torch.get_num_threads()} threads")

    test = leave_one_out(data, "test", config.max_length)
    histories, _ = test.gather(torch.arange(64), config.max_length)
    x_t, t = torch.randn(64, config.hidden_size), torch.arange(64) % config.num_diffusion_steps
    with torch.no_grad():
        model.eval()
        torch.manual_seed(1)
        ours = model.predict_x_start(*model.embed_history(histories), x_t, t, model.draw_lambda((*histories.shape, config.hidden_size)))
        for gelu in (gelu_by_formula, torch_gelu):
            torch.manual_seed(1)
            torch.testing.assert_close(
                plain_x_start(gelu, model, *plain_embed(model, histories), x_t, t), ours, rtol=0, atol=1e-4
            )

    def plain(step, *model_and_optimizer):
        return {
            f"plain, {gelu.__name__}": partial(step, gelu, *model_and_optimizer)
            for gelu in (gelu_by_formula, torch_gelu)
        }

    compare("evaluation, users", plain(plain_rank, model), partial(fast_rank, model), test, config.max_length,
            arguments.rounds)
    model.train()
    slow = torch.optim.Adam(model.parameters(), lr=1e-3)
    fast = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    compare("training, examples", plain(plain_train, model, slow), partial(fast_train, model, fast),
            leave_one_out(data, "train", config.max_length), config.max_length, arguments.rounds)


if __name__ == "__main__":
    main()
