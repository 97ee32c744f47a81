"""Reading CPU features from what Linux and macOS print."""

import pytest

from gguf_golf.runtime import cpu


def test_x86_keeps_code_and_drops_what_differs_between_virtual_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "x86_64")
    cpuinfo = "model name\t: x\nflags\t\t: fpu sse4_2 avx2 avx512f amx_tile bmi1 tsc_known_freq md_clear hypervisor\n"
    assert cpu._linux(cpuinfo) == {"sse4_2", "avx2", "avx512f", "amx_tile", "bmi1"}


def test_only_what_every_core_has_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "architecture", lambda: "arm64")
    cpuinfo = "Features\t: fp asimd sve i8mm\n\nprocessor : 1\nFeatures\t: fp asimd i8mm\n"
    assert cpu._linux(cpuinfo) == {"fp", "asimd", "i8mm"}


def test_macos() -> None:
    arm = "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\nhw.optional.neon: 1\n"
    assert cpu._darwin(arm) == {"FEAT_DotProd", "neon"}
    intel = "machdep.cpu.features: FPU SSE4.2 FMA\nmachdep.cpu.leaf7_features: AVX2 BMI1\n"
    assert cpu._darwin(intel) == {"fpu", "sse4.2", "fma", "avx2", "bmi1"}


def test_this_machine_has_some() -> None:
    assert cpu.features()
