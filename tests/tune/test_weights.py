"""The latents: how far their steps go, and which gradients they get."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")

import torch

from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.formats import quant_types
from gguf_golf.models import LazyTensor
from gguf_golf.tune.mapping import link_matrices
from gguf_golf.tune.weights import TRELLIS_STEPS, TRUST, Matrix


def test_an_expert_with_fewer_tokens_than_the_mean_takes_smaller_steps() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 256)).astype(np.float32)
    flat = values.reshape(-1, 256)
    stack = LazyTensor("blk.0.ffn_up_exps.weight", values.shape, "F32", lambda first, last: flat[first:last].copy())
    link = link_matrices([stack], {"experts": torch.from_numpy(values)})[stack.name]
    entry = ImatrixEntry(np.ones((3, 256), np.float32), np.array([0, 50, 250]))
    guide = Guide(Imatrix({stack.name: entry}))
    matrix = Matrix(stack, quant_types.get("q2_k"), link, "cpu")
    matrix.begin(guide, open_encoder("cpu", 1), None)
    latents, errors = zip(*matrix.train(guide), strict=True)
    error = float(np.sqrt(np.mean(np.square(matrix.stored.numpy() - flat))))
    assert errors == pytest.approx((0, error / 2, error))
    latents[1].data.add_(1.0)
    assert matrix.latent is not None
    assert np.array_equal(matrix.latent.numpy(), flat + np.repeat(np.float32([0, 1, 0]), 4)[:, None])


def test_latents_of_a_trellis_step_by_the_relative_error_and_stay_near_what_is_stored() -> None:
    values = np.random.default_rng(1).standard_normal((4, 256)).astype(np.float32)
    tensor = LazyTensor("blk.0.ffn_up.weight", values.shape, "F32", lambda first, last: values[first:last].copy())
    link = link_matrices([tensor], {"up": torch.from_numpy(values)})[tensor.name]
    matrix = Matrix(tensor, quant_types.get("tcq1"), link, "cpu")
    matrix.begin(Guide(), open_encoder("cpu", 1), None)
    ((latent, length),) = matrix.train(Guide())
    error = float(np.sqrt(np.mean(np.square(matrix.stored.numpy() - values))))
    assert length == pytest.approx(TRELLIS_STEPS * error**2 / float(np.sqrt(np.mean(np.square(values)))), rel=1e-4)
    far = np.abs(matrix.stored.numpy() - values) > TRUST * error
    assert 0 < far.mean() < 0.3
    matrix.take({"up": torch.ones(4, 256)})
    assert np.array_equal(latent.grad.numpy(), ~far)
