"""All that runs on a device, on a made-up second one: python tests/another_device.py fails where two devices meet.

There is no CUDA where the tests run. So PyTorch's fake tensors, which have a shape and a device and no content, go through
the data path, training, prediction, ranking and `recommend` on a device beside the CPU. A tensor left on the CPU by mistake,
or a generator of the wrong device, fails here as it would on a GPU. Values, speed, autocast and CUDA's
own kernels are not seen.
"""

import numpy as np
import torch
from torch._subclasses import fake_impls
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from diffurec import Dataset, DiffuRec, ModelConfig, TrainConfig, evaluate, train
from diffurec.base import distributed

DEVICE = "gpu"
VARIANTS = [{}, {"attention": "causal"}, {"cross_attention": True, "offset_noise": "shared"},
            {"offset_noise": "elementwise", "activation": "relu"}]


class Generator(torch.Generator):
    """A generator that says it is of a device and is the CPU's, the only kind there is here."""

    def __new__(cls, device="cpu"):
        generator = super().__new__(cls)
        generator.of = torch.device(device).type
        return generator


class SameDevice(TorchFunctionMode):
    """Refuses random numbers of one device by another's generator; gives numpy ones for what has no content."""

    def __torch_function__(self, function, types, arguments=(), options=None):
        if function is torch.Tensor.numpy:
            assert arguments[0].device.type == "cpu", "numpy reads the CPU's memory alone"
            return np.ones(tuple(arguments[0].shape), dtype=str(arguments[0].dtype).removeprefix("torch."))
        result = function(*arguments, **(options or {}))
        generator = (options or {}).get("generator")
        if isinstance(generator, Generator) and isinstance(result, torch.Tensor):
            assert generator.of == result.device.type, f"a generator of {generator.of} draws on {result.device}"
        return result


def one(mode, function, x):
    """What is heard by whoever asks a tensor without content for its value."""
    return True if x.dtype == torch.bool else 1.0 if x.dtype.is_floating_point else 1


def all_of_them(mode, function, x):
    """The places where a tensor without content is true."""
    return x.new_zeros((x.numel(), x.dim()), dtype=torch.int64)


def main():
    _setup_privateuseone_for_python_backend(DEVICE)
    torch.gpu.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.Generator = Generator
    fake_impls.op_implementations_dict[torch.ops.aten._local_scalar_dense.default] = one
    fake_impls.op_implementations_dict[torch.ops.aten.nonzero.default] = all_of_them
    distributed.choose_device = lambda name: torch.device(DEVICE)
    data = Dataset("d", 9, np.tile(np.arange(1, 9), 20), np.arange(0, 161, 8))
    for changes in VARIANTS:
        with FakeTensorMode(allow_non_fake_inputs=True), SameDevice():
            with torch.device(DEVICE):
                model = DiffuRec(9, ModelConfig(hidden_size=8, num_blocks=2, num_heads=2, num_diffusion_steps=4, **changes))
            model.to = lambda device: model                                      # fake parameters cannot be moved
            train(model, data, TrainConfig(epochs=2, batch_size=8, eval_every=1, grad_clip=1.0), log=None)
            evaluate(model, data, num_steps=2)
            evaluate(model, data, ensemble=2)
            evaluate(model, data, num_steps=1, filter_seen=True)
            generator = Generator(DEVICE)
            for ensemble in (None, 2):
                items, scores = model.recommend([[1, 2, 3], [4]], k=3, generator=generator, ensemble=ensemble)
                assert items.device.type == scores.device.type == DEVICE
            if model.cross_attention is not None:
                histories = torch.ones(2, 3, dtype=torch.long, device=DEVICE)
                x_t, t = torch.zeros(2, 8, device=DEVICE), torch.zeros(2, dtype=torch.long, device=DEVICE)
                assert model.cross_attention_weights(histories, x_t, t, generator).device.type == DEVICE
    print(f"{len(VARIANTS)} models ran on a device of their own.")


if __name__ == "__main__":
    main()
