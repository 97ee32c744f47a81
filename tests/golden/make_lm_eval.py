"""How lm_eval.json was made: log-likelihoods of invented questions in GPQA's form on golf-tiny, by the Hugging Face
class of lm-evaluation-harness 0.4.13 (PyTorch 2.13, CPU, float32). Needs `pip install lm-eval[hf]`.
"""

import json
from importlib.resources import files
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from gguf_golf.evaluate.tasks.kinds import gpqa
from gguf_golf.evaluate.tasks.kinds.gpqa import Record

RECORDS = [
    Record("a", "", "Which city is the capital of England?", ("London", "the largest city of France", "Rome", "1998")),
    Record("b", "", "What is 3 times 7,\n as a sum of two primes?", ("2 + 19", "3 + 18", "$7 + 14$", "there is none")),
    Record(
        "c", "", "An album was released in 1998 .", ("True .", "False .", "It was a film", "It was a river in Wales")
    ),
    Record(
        "d", "", "How does a gas cool when it expands?", ("by work", "by heat", "not at all", "by radiation of light")
    ),
]

model = HFLM(
    str(files("gguf_golf") / "data" / "golf-tiny"),
    dtype="float32",
    device="cpu",
    batch_size=1,
    max_length=512,
    add_bos_token=True,
)
found: dict[str, object] = {
    "records": [{"id": record.id, "stem": record.stem, "answers": record.answers} for record in RECORDS]
}
for form in ("letters", "answers"):
    options = [o for question in gpqa.questions(RECORDS, form, 2, 1) for v in question.variants for o in v.shown]
    requests = [
        Instance("loglikelihood", {}, (option.context, option.continuation), index)
        for index, option in enumerate(options)
    ]
    found[form] = model.loglikelihood(requests, True)
Path(__file__).with_name("lm_eval.json").write_text(json.dumps(found, indent=1) + "\n")
