"""`gguf-golf run`: templates, limits, plain continuation."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner

from gguf_golf import cli
from gguf_golf.errors import InputError
from gguf_golf.evaluate.generate import Sampling, render_chat, run
from gguf_golf.runtime.session import LoadedModel

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def with_template(source: Path, target: Path, template: str) -> Path:
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub_type = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    writer.add_chat_template(template)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def test_greedy_text_is_the_argmax_of_the_logits(tiny: Callable[[str], Path]) -> None:
    path = tiny("f32")
    text = "".join(run(str(path), "The city of", 5, Sampling(), chat=None, threads=2))
    with LoadedModel(path) as model, model.context(32, threads=2) as context:
        tokens = list(model.tokenize("The city of"))
        start = len(tokens)
        for _ in range(5):
            n = len(tokens)
            context.clear()
            logits = context.decode(np.array(tokens, np.int32), np.arange(n, dtype=np.int32), np.arange(n) == n - 1)
            tokens.append(int(logits[0].argmax()))
        expected = b"".join(model.piece(token) for token in tokens[start:]).decode()
    assert text == expected


def test_the_command_prints_it(tiny: Callable[[str], Path]) -> None:
    result = CliRunner().invoke(cli.cli, ["run", str(tiny("q8_0")), "-p", "The city of", "-n", "4", "--threads", "2"])
    assert result.exit_code == 0
    assert len(result.output.strip()) > 3


def test_the_template_of_the_file_is_used(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    path = with_template(tiny("q8_0"), tmp_path / "chat.gguf", TEMPLATE)
    with LoadedModel(path) as model:
        bos = model.piece(model.bos, special=True).decode()
        chat_text = render_chat(model, "Hello?")
        assert chat_text == f"{bos}<|user|>Hello?<|assistant|>"
        assert list(model.tokenize(chat_text, parse_special=True)).count(model.bos) == 1
    chat = "".join(run(str(path), "Hello?", 6, Sampling(), chat=None, threads=2))
    raw = "".join(run(str(path), "Hello?", 6, Sampling(), chat=False, threads=2))
    by_hand = "".join(run(str(path), "<|user|>Hello?<|assistant|>", 6, Sampling(), chat=False, threads=2))
    assert chat == by_hand != raw


def test_what_does_not_fit_or_is_not_there_is_refused(tiny: Callable[[str], Path]) -> None:
    path = str(tiny("q8_0"))
    with pytest.raises(InputError, match="carries no chat template"):
        list(run(path, "x", 5, Sampling(), chat=True, threads=2))
    with pytest.raises(InputError, match="trained for"):
        list(run(path, "x", 5000, Sampling(), chat=None, threads=2))
