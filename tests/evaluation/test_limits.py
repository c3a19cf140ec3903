"""Measures of models without a limit of positions, and of models with ids without a token."""

import numpy as np
import pandas as pd
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from pollination.evaluation import disagreement
from pollination.evaluation.harness import HarnessModel
from pollination.evaluation.member import read_text, score_text
from pollination.models import checkpoint
from tests.models.test_limits import model_that_prefers_ids_without_token, tokenizer_with_gaps
from tests.models.test_weights import write

ENTRY = {"corpus": "c", "split": "test", "max_tokens": None}


@pytest.mark.parametrize("family", ["bloom", "mamba"])
def test_models_without_a_limit_of_positions_are_measured(family, tmp_path):
    model, tokenizer = checkpoint.load_member(write(tmp_path / "given", family))
    text = " ".join("abcdefghij" * 20)
    frame = pd.DataFrame({"doc_id": ["0", "1"], "text": ["a b c", text]})
    frame.to_parquet(tmp_path / "test.parquet")
    path = tmp_path / "test.parquet"
    read = read_text(model, tokenizer, ENTRY, "documents", path)
    assert [len(ids) for ids in read] == [3, 200]
    scored = score_text(model, tokenizer, ENTRY, "documents", path, None, 2)
    assert scored.tokens.tolist() == [4, 201] and np.isfinite(scored.nll).all()
    rows = disagreement._rows(path, tokenizer, "documents", ENTRY, model.config)
    assert [len(row) for row in rows] == [5, 202]
    lm = HarnessModel(model, tokenizer, 2)
    (value, _), *_ = lm.loglikelihood([Instance("loglikelihood", {}, ("a b", " c"), 0)])
    with torch.no_grad():
        logits = model(torch.tensor([tokenizer("a b")["input_ids"]])).logits[0, -1]
    expected = logits.log_softmax(-1)[tokenizer.convert_tokens_to_ids("c")]
    assert value == pytest.approx(float(expected), abs=1e-4)


def test_a_generated_answer_holds_no_id_without_a_token():
    tokenizer = tokenizer_with_gaps()
    model = model_that_prefers_ids_without_token(tokenizer)
    options = {"until": ["zzz"], "max_gen_toks": 10, "do_sample": False}
    asked = [Instance("generate_until", {}, ("a b c", options), 0, ("t", 0, 1))]
    (ours,) = HarnessModel(model, tokenizer, 2).generate_until(asked)
    known = torch.tensor(sorted(tokenizer.get_vocab().values()))
    ids = tokenizer("a b c")["input_ids"]
    for _ in range(10):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        ids.append(int(known[logits[known].argmax()]))
        if ids[-1] == tokenizer.eos_token_id:
            break
    expected = tokenizer.decode(ids[3:], skip_special_tokens=True)
    assert ours.split() == expected.split()
    plain = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    assert plain.generate_until(asked) != [ours]  # what lm-eval alone would have given


def test_disagreement_is_that_of_the_ids_that_are_written():
    """Models of one tokenizer may have embeddings of different sizes."""
    tokenizer = tokenizer_with_gaps()
    models = [model_that_prefers_ids_without_token(tokenizer, rows) for rows in (40, 30)]
    known = disagreement._written(models, tokenizer)
    assert known.tolist() == sorted(tokenizer.get_vocab().values())
    row = np.array([0, 3, 8, 29, 4])
    frame, _ = disagreement.disagreement(models, [row], 2, known)
    with torch.no_grad():
        p, q = (m(torch.from_numpy(row)[None]).logits[0, :-1][:, known].softmax(-1) for m in models)
    entropy = lambda x: torch.special.entr(x).sum(-1)  # noqa: E731
    js = entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2
    assert frame.js[0] == pytest.approx(float(js.mean()), abs=1e-6)
