"""What a guide knows of each matrix, what it refuses, and what it tells."""

from pathlib import Path

import numpy as np
import pytest

from gguf_golf.calibrate.hessian import Accumulator, Hessians, Rows, Survey
from gguf_golf.calibrate.imatrix import Imatrix, ImatrixEntry
from gguf_golf.encode import DEVICES, Guide, open_encoder
from gguf_golf.encode.feedback import factor_hessian
from gguf_golf.errors import InputError
from gguf_golf.formats import quant_types

TCQ3, Q4_K, F16 = (quant_types.get(name) for name in ("tcq3", "q4_k", "f16"))
EXPERTS = "blk.0.ffn_up_exps.weight"


@pytest.fixture
def guide(tmp_path: Path) -> Guide:
    """Two experts, of which calibration reached the second alone, and a dense weight that only the imatrix has."""
    rng = np.random.default_rng(0)
    rows = Rows(EXPERTS, "ffn_norm", 2, 1, rng.standard_normal((600, 256)).astype(np.float32))
    survey = Survey()
    survey.observe(rows)
    with Accumulator(tmp_path / "h.gguf", survey) as sums:
        sums.observe(rows)
    entries = {
        EXPERTS: ImatrixEntry(rng.uniform(1, 2, (2, 256)), np.array([0, 600])),
        "blk.0.attn_q.weight": ImatrixEntry(rng.uniform(1, 2, (1, 256)), np.array([100])),
    }
    return Guide(Imatrix(entries), Hessians(tmp_path / "h.gguf"))


def test_each_expert_has_its_own_guidance(guide: Guide) -> None:
    assert guide.imatrix is not None and guide.hessians is not None
    idle, reached = (guide.of(EXPERTS, TCQ3, 256, expert, 2) for expert in (0, 1))
    assert idle.feedback is not None and idle.importance is not None, "it takes after its sibling"
    np.testing.assert_allclose(reached.importance, guide.imatrix.entries[EXPERTS].in_sum2[1] / 600, rtol=1e-6)
    hessian = guide.hessians.get(EXPERTS, 1)
    assert hessian is not None and reached.feedback is not None
    np.testing.assert_array_equal(reached.feedback.propagation, factor_hessian(hessian, 256).propagation)


def test_feedback_is_for_tcq_alone_and_plain_types_take_no_guidance(guide: Guide) -> None:
    assert guide.of(EXPERTS, Q4_K, 256, 1, 2).feedback is None
    assert guide.of(EXPERTS, Q4_K, 256, 1, 2).importance is not None
    assert guide.of(EXPERTS, F16, 256, 1, 2).importance is None
    assert guide.of("token_embd.weight", TCQ3, 256).importance is None
    assert guide.without_hessians().of(EXPERTS, TCQ3, 256, 1, 2).feedback is None


def test_other_shapes_are_of_another_model(guide: Guide) -> None:
    for k, n_experts in ((512, 2), (256, 4)):
        with pytest.raises(InputError, match="another model"):
            guide.of(EXPERTS, TCQ3, k, 0, n_experts)
    with pytest.raises(InputError, match=r"h\.gguf has \(2, 256\) for blk.*another model"):
        Guide(None, guide.hessians).check(EXPERTS, 512, 2)


def test_missing_guidance_is_told(guide: Guide) -> None:
    known = {EXPERTS: TCQ3, "blk.0.attn_q.weight": Q4_K, "token_embd.weight": Q4_K, "blk.0.attn_norm.weight": F16}
    assert any("never chose 1 of 2" in note for note in guide.notes(known))
    told = guide.notes({**known, "blk.1.attn_q.weight": TCQ3, "blk.1.attn_k.weight": Q4_K})
    assert "the imatrix has nothing about blk.1.attn_q.weight and 1 more: encoded without it" in told
    assert any(note.startswith("no error feedback for blk.1.attn_q.weight: not in") for note in told)
    with pytest.raises(InputError, match="collected on another model"):
        guide.notes({"blk.7.attn_q.weight": TCQ3})


def test_devices_are_named() -> None:
    with pytest.raises(InputError, match=f"'tpu' to encode on; devices are {', '.join(DEVICES)}"):
        open_encoder("tpu")


def test_experts_are_known_by_how_many_tokens_they_got(guide: Guide) -> None:
    assert guide.routed(EXPERTS, 2).tolist() == [0, 2]
    assert guide.routed("blk.0.attn_q.weight", 1).tolist() == [1]
    assert guide.routed("unknown", 3).tolist() == [1, 1, 1]
