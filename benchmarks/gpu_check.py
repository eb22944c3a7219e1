"""What can only be checked on a GPU: `make gpu-check`. It fails with the first claim that does not hold.

Equality with the CPU, the same run twice, bfloat16 by autocast, and speed, on made-up histories at the paper's size
(12,000 items, d = 128, four blocks, L = 50, batch 512), for DiffuRec in both forms and for DiffuRecSys. A GPU adds up
gradients of one item in no fixed order, so two runs of one seed are asked for the same losses to 1e-3; whether to the
last bit is said.
"""

import copy
import sys
import time

import numpy as np
import torch

from diffurec import Dataset, DiffuRec, ModelConfig, TrainConfig, tied_ranks, train
from diffurec.fast import install

NUM_ITEMS, BATCH, LENGTH = 12_000, 512, 50
VARIANTS = {"DiffuRec": {}, "DiffuRec, every prefix at once": {"attention": "causal"},
            "DiffuRecSys": {"cross_attention": True, "offset_noise": "constant"}}


def made_up_data(users=4_000):
    rng = np.random.default_rng(0)
    lengths = rng.integers(5, LENGTH + 3, users)
    return Dataset("made up", NUM_ITEMS, rng.integers(1, NUM_ITEMS + 1, lengths.sum()), np.r_[0, lengths.cumsum()])


def new_model(**changes):
    """Without dropout and with a lambda that lets the target be heard, so that every part shows in the loss."""
    torch.manual_seed(0)
    config = ModelConfig(dropout=0.0, embedding_dropout=0.0, lambda_uncertainty=0.5, **changes)
    return install(DiffuRec(NUM_ITEMS, config))


def loss_and_gradients(model, batch, lambda_, precision):
    """(losses [P], {name: gradient}, places of the targets [P, 2]), computed on the model's device, given on the CPU.

    P: the B targets of the batch, or with one for each position of a causal model all of them.
    """
    model.draw_lambda = lambda shape, generator=None: lambda_.to(model.device)
    batch = [x.to(model.device) for x in batch]
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        losses = model(*batch)
        histories, targets, t, x_t = batch
        with torch.no_grad():
            x_start = model.predict_x_start(*model.embed_history(histories), x_t, t, model.draw_lambda(()))
    losses.mean().backward()
    places = tied_ranks(model, x_start[targets != 0].float(), targets[targets != 0])
    return losses.detach().cpu(), {name: p.grad.cpu() for name, p in model.named_parameters()}, places.cpu()


def check_equality(changes):
    """Losses, gradients and places of the two devices: in float32 to rounding, in bfloat16 to its eight bits."""
    draw = torch.Generator().manual_seed(1)
    histories = torch.randint(1, NUM_ITEMS + 1, (BATCH, LENGTH), generator=draw)
    histories[: BATCH // 2, : LENGTH // 2] = 0
    targets = torch.randint(1, NUM_ITEMS + 1, (BATCH,), generator=draw)
    if changes.get("attention") == "causal":                                     # padded on the right, a target for each item
        histories = histories.flip(1)
        targets = torch.where(histories == 0, 0, torch.randint(1, NUM_ITEMS + 1, histories.shape, generator=draw))
    shape = targets.shape
    batch = histories, targets, torch.randint(32, shape, generator=draw), torch.randn(*shape, 128, generator=draw)
    lambda_ = 0.5 + 0.5 * torch.randn(BATCH, LENGTH, 128, generator=draw)
    model = new_model(**changes)
    expected, wanted, places = loss_and_gradients(copy.deepcopy(model), batch, lambda_, "float32")
    for precision, tolerance in (("float32", 1e-3), ("bfloat16", 0.05)):
        found, got, others = loss_and_gradients(copy.deepcopy(model).cuda(), batch, lambda_, precision)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        worst = max((got[n] - g).norm() / (g.norm() + 1e-6) for n, g in wanted.items() if "key_value.bias" not in n)
        assert worst < (0.01 if precision == "float32" else 0.2), f"a gradient is {worst:.1%} off in {precision}"
        if precision == "float32":
            moved = ((others - places).abs().amax(1) > 1).sum()
            assert moved < 0.02 * len(places), f"{moved} of {len(places)} targets have another place"
        print(f"  {precision}: losses within {(found - expected).abs().max():.1e} of the CPU's, gradients within {worst:.2%}")


def check_determinism_and_speed(data, changes):
    """Two trainings of one seed give the same losses; then the rates."""
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(epochs=2, eval_every=2, eval_num_steps=1, device="cuda", precision=precision)
        runs = []
        for _ in range(2):
            torch.manual_seed(0)
            model = DiffuRec(NUM_ITEMS, ModelConfig(**changes))
            runs.append((train(model, data, config, log=None), model.state_dict()))
        (first, weights), (second, others) = runs
        same = all(torch.equal(weights[name], others[name]) for name in weights)
        print(f"  {precision}: the same run twice gives {'the same bits' if same else 'OTHER BITS'}, losses "
              f"{[round(e['loss'], 4) for e in first.log]} and {[round(e['loss'], 4) for e in second.log]}")
        assert all(abs(a["loss"] - b["loss"]) < 1e-3 for a, b in zip(first.log, second.log)), "one seed gave two runs"
        assert first.log[-1]["loss"] < first.log[0]["loss"], "two epochs learned nothing"
        examples = int((np.diff(data.offsets) - 3).sum())
        print(f"  {precision}: trains {examples / first.log[-1]['seconds']:,.0f} examples a second")
    histories = torch.randint(1, NUM_ITEMS + 1, (BATCH, LENGTH), device="cuda")
    for num_steps in (32, 1):
        model.eval().predict(histories, num_steps)
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.predict(histories, num_steps).cpu()
        print(f"  predicts for {BATCH / (time.perf_counter() - start):,.0f} users a second with {num_steps} steps")


def main():
    if not torch.cuda.is_available():
        print("torch finds no CUDA device here; run this where there is one.", file=sys.stderr)
        return 2
    print(torch.cuda.get_device_name(), "torch", torch.__version__)
    data = made_up_data()
    for name, changes in VARIANTS.items():
        print(name)
        check_equality(changes)
        check_determinism_and_speed(data, changes)
    print("All that was claimed holds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
