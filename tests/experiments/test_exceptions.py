"""The experiments on exceptions: their bytes, their choices and their algebra, each against something independent."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the [tune] extra")

import torch
from transformers import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

from eval.experiments.exceptions import absorbing, chosen, codebooks, rotation, rows, trained
from eval.experiments.exceptions.comparison import Results
from eval.experiments.exceptions.plans import Candidate, Curve, Path
from eval.experiments.exceptions.storage import Storage, Stored, grid, sparse_index_bytes
from eval.experiments.exceptions.subject import Matrix, Source, _Experts
from gguf_golf.encode import open_encoder
from gguf_golf.formats import quant_types

N, K = 6, 16


@pytest.fixture
def matrix() -> Matrix:
    """A matrix with correlated inputs and gradients of different sizes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, K, generator=generator) @ torch.randn(K, K, generator=generator)
    halves = torch.stack([(rows.T @ rows).double() / 100 for rows in x.chunk(2)])
    gradients = torch.rand(2, N, generator=generator).double()
    weights = torch.randn(N, K, generator=generator)
    return Matrix("mlp.up_proj", "mlp.up_proj", SimpleNamespace(), weights, Source(halves), gradients)  # type: ignore


def test_plans_are_the_best_of_their_size() -> None:
    rng = np.random.default_rng(0)
    tensors = {
        str(i): [Candidate(int(n), float(rng.random()), n) for n in np.cumsum(rng.integers(1, 9, 4))] for i in range(4)
    }
    path = Path(tensors)
    sizes = {sum(c.n_bytes for c in path.at(budget).values()) for budget in range(10, 120)}
    every = list(itertools.product(*tensors.values()))
    steps = 0
    for size in sizes:
        plan = path.at(size)
        least = min(sum(c.damage for c in each) for each in every if sum(c.n_bytes for c in each) <= size)
        found = sum(c.damage for c in plan.values())
        steps += math.isclose(found, least)
        assert found <= 1.25 * least
    assert steps >= len(sizes) / 2  # those on the convex hull


def test_a_plan_that_only_adds_starts_from_its_base() -> None:
    candidates = [Candidate(1, 9.0, "small"), Candidate(2, 5.0, "base"), Candidate(4, 1.0, "large")]
    path = Path({"a": candidates}, {"a": candidates[1]})
    assert [path.at(budget)["a"].choice for budget in (2, 3, 4)] == ["base", "base", "large"]


def test_damage_curves_go_through_their_points() -> None:
    curve = Curve([(0.1, 0.2), (1.0, 4.0)])
    assert curve(0.05) == pytest.approx(0.1)
    assert curve(0.1) == pytest.approx(0.2)
    assert curve(1.0) == pytest.approx(4.0)


def test_a_gain_is_the_damage_saved_by_one_weight(matrix: Matrix) -> None:
    error = torch.randn(N, K, generator=torch.Generator().manual_seed(1))
    gains = matrix.gains(error)
    for row, column in ((0, 0), (3, 7), (5, 15)):
        without = error.clone()
        without[row, column] = 0
        saved = matrix.damage(error) - matrix.damage(without)
        assert float(gains[row, column]) == pytest.approx(saved, rel=1e-3, abs=1e-4)


def test_columns_that_absorb_answer_as_least_squares_does(matrix: Matrix) -> None:
    hessian = matrix.hessian.double()
    kept = torch.tensor([2, 9])
    error = torch.randn(N, K, generator=torch.Generator().manual_seed(2)).double()
    error[:, kept] = 0
    answered = error.clone()
    answered[:, kept] = -(error @ absorbing._answers(hessian, kept).T)
    root = torch.linalg.cholesky(hessian).numpy()  # |root^T (e + p)| is what the kept columns make least
    for row in range(N):
        best, *_ = np.linalg.lstsq(root[kept].T, -root.T @ error[row].numpy(), rcond=None)
        assert answered[row, kept].numpy() == pytest.approx(best, rel=1e-4)


def test_pivots_explain_at_least_as_much_as_the_largest_columns(matrix: Matrix) -> None:
    hessian = matrix.hessian.double()

    def left(kept: torch.Tensor) -> float:
        return float((hessian - hessian[:, kept] @ absorbing._answers(hessian, kept)).trace())

    explained = absorbing._columns(matrix.hessian, 1, "explained", 0)
    assert left(explained) == pytest.approx(min(left(torch.tensor([j])) for j in range(K)))


def test_directions_approximate_best_under_the_weights(matrix: Matrix) -> None:
    error = torch.randn(N, K, generator=torch.Generator().manual_seed(6))
    left, right, strengths = chosen._directions(matrix.row_weights, matrix.hessian, error, 0)
    assert torch.allclose(left @ right, error, atol=1e-3)  # all six directions
    saved = [matrix.damage(error - left[:, :r] @ right[:r]) for r in range(N + 1)]
    assert saved == pytest.approx([float(strengths[r:].square().sum()) / 2 for r in range(N + 1)], rel=0.1, abs=1e-3)


def test_hadamard_matrices_are_orthonormal() -> None:
    hadamard = rotation._hadamard(64)
    assert torch.allclose(hadamard @ hadamard.T, torch.eye(64, dtype=torch.float64))
    assert torch.allclose(hadamard.abs(), torch.full((64, 64), 1 / 8, dtype=torch.float64))


def test_a_rotated_basis_keeps_weights_and_the_size_of_errors(matrix: Matrix) -> None:
    basis = rotation.Basis(matrix.original, 64, seed=0)  # of 16 inputs, so blocks of 16
    turned = basis.turned(matrix.original)
    assert not torch.allclose(turned, matrix.original, atol=0.1)
    assert torch.allclose(basis.back(turned), matrix.original, atol=1e-5)
    sizes = [
        torch.sum((e @ h) * e) for e, h in ((matrix.original, matrix.hessian), (turned, basis.hessian(matrix.hessian)))
    ]
    assert float(sizes[1]) == pytest.approx(float(sizes[0]), rel=1e-4)


def _latent(matrix: Matrix, mechanism: str) -> trained._Latent:
    subject = SimpleNamespace(put=lambda matrix, content: matrix.module.weight.data.copy_(content))
    storage = SimpleNamespace(encoder=open_encoder("cpu", 1), device="cpu")
    bench = SimpleNamespace(seed=0, subject=subject, storage=storage)
    return trained._Latent(bench, matrix, quant_types.get("tcq1_64"), mechanism)  # type: ignore[arg-type]


@pytest.mark.parametrize("mechanism", ["none", "rotation", "branch"])
def test_training_moves_what_the_model_computes_with_along_the_gradient(mechanism: str) -> None:
    """The gradient of what is trained says how much any small change of it changes a linear loss."""
    generator = torch.Generator().manual_seed(4)
    original, slope = torch.randn(2, 8, 64, generator=generator)
    halves = torch.eye(64).double().expand(2, 64, 64) / 2
    module = torch.nn.Linear(64, 8, bias=False)
    matrix = Matrix("mlp.up_proj", "mlp.up_proj", module, original, Source(halves), torch.ones(2, 8))
    latent = _latent(matrix, mechanism)
    assert torch.equal(module.weight.data, latent.weights())
    module.weight.grad = slope.clone()
    latent.pass_gradient()
    change = torch.randn(8, 64, generator=generator)
    moved = latent._basis.back(change) if mechanism == "rotation" else change
    assert float((latent.trunk.grad * change).sum()) == pytest.approx(float((slope * moved).sum()), rel=1e-4)
    if mechanism == "branch":
        parts = [part.requires_grad_(True) for part in latent._rounded()]
        (slope * (parts[0] @ parts[1])).sum().backward()
        for factor, part in zip(latent.factors, parts, strict=True):
            assert torch.allclose(factor.grad, part.grad, atol=1e-5)


def test_a_branch_makes_up_for_some_of_what_the_trunk_lost() -> None:
    generator = torch.Generator().manual_seed(5)
    spikes = torch.zeros(8, 64)
    spikes[3] = 5 * torch.randn(64, generator=generator)
    original = torch.randn(8, 64, generator=generator) + spikes
    halves = torch.eye(64).double().expand(2, 64, 64) / 2
    matrix = Matrix("mlp.up_proj", "mlp.up_proj", torch.nn.Linear(64, 8), original, Source(halves), torch.ones(2, 8))
    branch, none = (_latent(matrix, each).weights() - original for each in ("branch", "none"))
    assert float(branch.square().sum()) < 0.8 * float(none.square().sum())


def test_a_norm_begins_by_leaving_inputs_of_the_usual_size(matrix: Matrix) -> None:
    x = torch.randn(5, K, generator=torch.Generator().manual_seed(6))
    usual = x * (matrix.hessian.diagonal().mean() / x.square().mean(-1, keepdim=True)).sqrt()
    assert torch.allclose(trained._Norm(matrix)(usual), usual, rtol=1e-4)
    assert torch.allclose(trained._Norm(matrix)(3 * x), usual, rtol=1e-4)


def test_codebooks_find_points_that_they_contain() -> None:
    generator = torch.Generator().manual_seed(3)
    books = torch.randn(2, 4, 8, generator=generator) * torch.tensor([10.0, 1.0])[:, None, None]
    codes = torch.randint(0, 4, (50, 2), generator=generator)
    points = codebooks._decode(books, codes)
    assert torch.equal(codebooks._assign(points, torch.ones_like(points), books), codes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_grid_errs_by_at_most_half_a_step(bits: int, dim: int) -> None:
    x = torch.randn(70, 70, generator=torch.Generator().manual_seed(4))
    step = x.abs().max() / (2 ** (bits - 1) - 1)
    assert float((grid(x, bits, dim) - x).abs().max()) <= float(step) * 0.51


def test_the_index_of_single_weights_is_the_logarithm_of_the_choices() -> None:
    assert sparse_index_bytes(1000, 10) == math.ceil(math.log2(math.comb(1000, 10)) / 8)
    assert sparse_index_bytes(1000, 0) == 0


def test_a_ratio_compares_at_equal_bytes() -> None:
    def cell(experiment: str, key: dict[str, object], n_bytes: int, kld: list[float]) -> dict[str, object]:
        about = {"model": "m", "seed": 0, "bytes": n_bytes, "wiki": {"kld": kld}}
        return {"experiment": experiment, "key": key, **about}

    line = {"plan": "planned", "fed": True}
    found = Results(
        [
            cell("reference", line, 1000, [0.4, 0.8]),
            cell("reference", line, 4000, [0.1, 0.2]),
            cell("sweep", {"share": 1}, 2000, [0.1, 0.2]),
            cell("sweep", {"share": 2}, 9000, [0.1, 0.2]),
        ]
    )
    assert found.ratio(found.find("sweep", "m", share=1), line) == "0.500 ± 0.000"
    assert found.ratio(found.find("sweep", "m", share=2), line) == ""  # nothing to compare it with


def test_experts_taken_apart_compute_the_same() -> None:
    config = Qwen3MoeConfig(
        hidden_size=16, moe_intermediate_size=8, num_experts=4, num_experts_per_tok=2, norm_topk_prob=True
    )
    torch.manual_seed(5)
    block = Qwen3MoeSparseMoeBlock(config).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = block(x)
        block.experts = _Experts(block.experts)
        assert torch.allclose(block(x), expected, atol=1e-4)


@pytest.mark.parametrize("residual", ["tcq3", "q8"])
def test_protected_rows_are_the_worst_and_cost_what_they_take(residual: str) -> None:
    generator = torch.Generator().manual_seed(7)
    halves = torch.eye(64).double().expand(2, 64, 64) / 2
    weights = torch.randn(N, 64, generator=generator)
    matrix = Matrix("mlp.up_proj", "mlp.up_proj", SimpleNamespace(), weights, Source(halves), torch.ones(2, N).double())  # type: ignore
    size_of_errors = torch.tensor([0.1, 2.0, 0.1, 0.1, 1.0, 0.1])[:, None]
    base = {matrix.name: Stored(weights + size_of_errors * torch.randn(N, 64, generator=generator), 1000)}
    bench: Any = SimpleNamespace(
        subject=SimpleNamespace(matrices={matrix.name: matrix}, fixed_bytes=10),
        storage=Storage(open_encoder("cpu", 1), "cpu"),
        scale=lambda _: 1.0,
        companion_bytes=lambda names, n: 100 * n * len(names),
    )
    each = rows._row_bytes(residual, 64) + 2
    made = rows._with_rows(bench, base, 2.5 * each, "everywhere", residual)
    assert made.n_bytes == 10 + 1000 + 2 * each + 200
    before, after = ((weights - w).square().sum(1) for w in (base[matrix.name].weights, made.weights[matrix.name]))
    assert [bool(x) for x in after < before / 10] == [False, True, False, False, True, False]
    assert torch.equal(after[[0, 2, 3, 5]], before[[0, 2, 3, 5]])
