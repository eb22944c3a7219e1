"""The plain form: DiffuRec as the tutorial writes it out (notebooks 4, 5 and 8), over a module's own weights.

Every history is padded to L, attention is its formula, every block computes all positions, masks come from nn.Dropout's
generator, the scores of the whole catalogue go to F.cross_entropy, a sort ranks them. The specification of the fast form:
tests/test_fast.py compares outputs and gradients, bench.py the time.
"""

import math

import torch
import torch.nn.functional as F


def torch_gelu(x):
    """As the tutorial has it."""
    return F.gelu(x, approximate="tanh")


def gelu_by_formula(x):
    """As the released code has it."""
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3))))


def attention(module, queries, memory, real):
    """[B, Q, d], [B, L, d], [B, L] True at real items -> [B, Q, d]."""
    heads, d = module.num_heads, memory.shape[-1]
    query, key, value = (
        y.view(*y.shape[:2], heads, d // heads).transpose(1, 2)
        for y in (module.query(queries), *module.key_value(memory).chunk(2, dim=-1))
    )
    scores = query @ key.transpose(2, 3) / math.sqrt(d // heads)                 # [B, H, Q, L]
    shares = scores.masked_fill(~real[:, None, None, :], -1e9).softmax(-1)
    return module.out((shares @ value).transpose(1, 2).reshape(queries.shape))


def drop(module, x):
    return F.dropout(x, module.p, module.training)


def block(module, x, real, gelu):
    """[B, L, d] -> [B, L, d], every position computed."""
    h = module.attention_norm(x)
    x = x + drop(module.dropout, attention(module.attention, h, h, real))
    widen, _, narrow = module.feed_forward
    return x + drop(module.dropout, narrow(gelu(widen(module.feed_forward_norm(x)))))


def embed(model, histories):
    """Left-padded ids [B, L] -> (e_1..e_L [B, L, d], True at real items [B, L])."""
    return model.history_norm(drop(model.history_dropout, model.item_embedding(histories))), histories != 0


def predict_x_start(model, embedded, real, x_t, t, lambda_, gelu=torch_gelu):
    """As DiffuRec.predict_x_start: [B, L, d], [B, L], [B, d], [B], [B, L, d] -> [B, d]."""
    target = (x_t + model.step_embedding(t)).unsqueeze(1)
    if model.cross_attention is None:
        z = embedded + lambda_ * target
    else:
        z = embedded + drop(model.cross_dropout, attention(model.cross_attention, lambda_ * target, embedded, real))
    for module in model.approximator.blocks:
        z = block(module, z, real, gelu)
    return model.approximator.norm(drop(model.approximator.dropout, z))[:, -1]


def loss(model, histories, targets, t, noise, lambda_, gelu=torch_gelu):
    """As DiffuRec.forward, with the lambda drawn before: -> [B]."""
    x_t = model.diffusion.q_sample(model.item_embedding(targets), t, noise)
    x_start = predict_x_start(model, *embed(model, histories), x_t, t, lambda_, gelu)
    scores = x_start @ model.item_embedding.weight.T                             # [B, I + 1]
    return F.cross_entropy(scores[:, 1:], targets - 1, reduction="none")


@torch.no_grad()
def rank(model, histories, targets, gelu=torch_gelu):
    """All reverse steps, then the target's place in a sort of all scores: [B], 1 is best."""
    embedded, real = embed(model, histories)

    def x_start(x_t, t):
        return predict_x_start(model, embedded, real, x_t, t, model.draw_lambda(embedded.shape), gelu)

    prediction = model.diffusion.p_sample_loop(x_start, torch.randn(len(histories), model.config.hidden_size))
    order = (prediction @ model.item_embedding.weight[1:].T).argsort(dim=1, descending=True)
    return (order == (targets - 1).unsqueeze(1)).int().argmax(dim=1) + 1
