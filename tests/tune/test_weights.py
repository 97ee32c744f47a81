"""The latents of experts: how far their steps go."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")

import torch

from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import Guide, open_encoder
from gguf_golf.formats import quant_types
from gguf_golf.models import LazyTensor
from gguf_golf.tune.mapping import link_matrices
from gguf_golf.tune.weights import Matrix


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
