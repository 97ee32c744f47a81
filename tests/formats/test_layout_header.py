"""The header that says where everything is in a block: current, and what it computes is what NumPy says."""

import shutil
import subprocess

import numpy as np
import pytest

from gguf_golf.formats import layout_header, quant_types, tcq

PROGRAM = """
#include "ggml-tcq-layout.h"
#include <cstdio>
#include <initializer_list>

#define PRINT_TYPE(name, NAME, qk) printf("type %s %d\\n", #name, qk);
#define PRINT_RATE(R)              printf("rate %d %a\\n", R, TCQ##R##_LEVEL_RMS);

static const uint32_t SLOTS[] = { 0x00000000, 0xffffffff, 0x12345678, 0x5a00a5fe, 0x00ff80c3, 0x01c07f10, 0xfe000081 };

int main() {
    TCQ_FOR_EACH_TYPE(PRINT_TYPE)
    TCQ_RATES(PRINT_RATE)
    for (uint32_t slots : SLOTS) {
        for (int block_size : { QK_TCQ, QK_TCQ_64 }) {
            for (int i = 0; i < tcq_n_slots(block_size); ++i) {
                printf("slot %d %u %d %d %d\\n", block_size, slots, i, tcq_slot_position(block_size, slots, i),
                       tcq_slot_index(block_size, slots, i));
            }
        }
    }
    for (int block_size : { QK_TCQ, QK_TCQ_64 }) {
        for (int i = 0; i < block_size; ++i) {
            printf("weight %d %d %d\\n", block_size, i, tcq_weight_at(block_size, i));
        }
        for (int rate = 2; rate <= TCQ_N_RATES; ++rate) {
            for (int k = 0; k < 8; ++k) {
                for (int b = 0; b < rate - 1; ++b) {
                    const tcq_lo_bit at = tcq_get_lo_bit(block_size, rate, k, b);
                    printf("lo %d %d %d %d %d %d\\n", block_size, rate, k, b, at.plane, at.bit);
                }
            }
        }
    }
}
"""


def test_header_is_current() -> None:
    assert layout_header.HEADER.read_text() == layout_header.render()


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """What a program that includes the header prints, in words."""
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("layout")
    (folder / "main.cpp").write_text(PROGRAM)
    command = [compiler, "-std=c++17", f"-I{layout_header.HEADER.parent}", folder / "main.cpp", "-o", folder / "main"]
    subprocess.run(command, check=True)
    done = subprocess.run([folder / "main"], capture_output=True, text=True, check=True)
    return [line.split() for line in done.stdout.splitlines()]


def rows(printed: list[list[str]], what: str) -> list[list[int]]:
    return [[int(word) for word in words[1:]] for words in printed if words[0] == what]


def test_types_and_rates(printed: list[list[str]]) -> None:
    listed = {words[1]: int(words[2]) for words in printed if words[0] == "type"}
    assert listed == {name: fmt.block_size for name, fmt in quant_types.TCQ_FORMATS.items()}
    level_rms = {int(words[1]): float.fromhex(words[2]) for words in printed if words[0] == "rate"}
    assert level_rms == {rate: float(np.float32(row.level_rms)) for rate, row in tcq.RATES.items()}


def test_chain_order(printed: list[list[str]]) -> None:
    for block_size in (256, 64):
        found = [row[2] for row in rows(printed, "weight") if row[0] == block_size]
        assert found == tcq.chain_order(block_size).tolist()


def test_lo_bits(printed: list[list[str]]) -> None:
    found = rows(printed, "lo")
    assert len(found) == 2 * 8 * (1 + 2 + 3 + 4)
    for block_size, rate, k, b, plane, bit in found:
        n_bytes = block_size // 8
        y = np.arange(n_bytes)
        positions = tcq.lo_bit_positions(tcq.TcqFormat(rate, block_size))
        assert np.array_equal(positions[n_bytes * k + y, b], 8 * (n_bytes * plane + y) + bit)


def test_slots(printed: list[list[str]]) -> None:
    found = rows(printed, "slot")
    assert len(found) == 7 * (3 + 1)
    for block_size, slots, i, position, index in found:
        fmt = tcq.TcqFormat(1, block_size)
        side = np.frombuffer(slots.to_bytes(4, "little"), np.uint8)[: 4 if block_size == 256 else 1]
        block = np.concatenate((np.zeros(fmt.slot_offset, np.uint8), side, np.zeros(1, np.uint8)))[: fmt.type_size]
        positions, choice = tcq.slot_fields(fmt, block[None])
        assert (position, index) == (positions[0, i], choice[0] * (4 if block_size == 256 else 1) + i)


def test_slot_magnitudes_are_multiples_of_the_level_rms() -> None:
    for row in tcq.RATES.values():
        np.testing.assert_allclose((row.slot, *row.great), np.array([3, 8, 24]) * row.level_rms, atol=0.5)
        np.testing.assert_allclose(row.slots_64, np.array([3, 8]) * row.level_rms, atol=0.5)


def test_the_largest_level_is_some_rates() -> None:
    assert max(max(levels) for levels in tcq.LEVELS.values()) == tcq.MAX_LEVEL
