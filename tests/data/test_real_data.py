"""The published data through the whole pipeline, with a small random Gemma 2 and SAE; and through the demo's tokenizer.

All rows are prepared. Only a few of each dataset go through the model.
"""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import Gemma2Config, Gemma2Model, PreTrainedTokenizerFast

import demo_params
from real_data import REAL, ROOT, needs_real_data
from sae_transfer.artifacts import activations
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.data import overview, prompt_templates
from sae_transfer.data.loaders import loader_registry
from sae_transfer.data.overlap import normalised
from sae_transfer.model import loading, token_counts, tokens
from sae_transfer.model.model_params import ModelParams
from sae_transfer.pipeline import encode, extract, fit, inputs, judge, prepare, transfer
from sae_transfer.pipeline.study import Study

pytestmark = needs_real_data
LAYER, D_MODEL, D_SAE, CONTEXT = 1, 32, 128, 2048
HALF = {"answerable": 119, "unanswerable": 123}  # of ACE-whQA's 238 and 246
WHOLE = {
    "squad": {"loader": "squad", "path": str(REAL / "squad-v2.0-dev-half.json"), "n_train": 2000, "n_test": 1800},
    "idk": {
        "loader": "idk",
        "path": str(REAL),
        "train_files": ["ACE-whQA-has-answer.json", "ACE-whQA-IDK-non-competitive.json"],
        "n_train": HALF,
        "n_test": HALF,
    },
    "boolq": {"loader": "boolq", "path": str(REAL / "BoolQ_3L-dev_full.json"), "n_train": 1000, "n_test": 1000},
}
FEW = {f"few_{name}": section | {"n_train": 120, "n_test": 60} for name, section in WHOLE.items()}
FEW["few_squad"]["variations"] = ["terse"]
PARAMS = demo_params.demo(
    jobs=1,
    study={"datasets": list(FEW), "saes": ["random"]},
    model={"name": "model", "layers": [LAYER], "device": "cpu"},
    saes={"random": {"layer": LAYER, "path": "sae", "override": True}},
    datasets=WHOLE | FEW,
    probe={"n_folds": 3, "C_grid": [0.01, 1.0], "N": [2, 8], "top_k": 3, "repeats": 2, "matched_n_train": 120},
    transfer={"resamples": 50},
    verbal={"abstaining": []},
)


def save_model(folder, texts):
    """A random Gemma 2 with a byte-level tokenizer that was trained on the texts: no word is unknown to it."""
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(texts, vocab_size=1000, special_tokens=["<bos>"], show_progress=False)
    PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, bos_token="<bos>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = {
        "vocab_size": 1000,
        "hidden_size": D_MODEL,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "query_pre_attn_scalar": 16,
        "initializer_range": 0.2,
    }
    Gemma2Model(Gemma2Config(**shape)).save_pretrained(folder)


def save_sae(folder):
    import sae_lens

    torch.manual_seed(1)
    sae = sae_lens.StandardSAE(sae_lens.StandardSAEConfig(d_in=D_MODEL, d_sae=D_SAE))
    sae.cfg.metadata.hook_name = f"blocks.{LAYER}.hook_resid_post"
    sae.save_model(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder where the three datasets went from the originals to the transfer table."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("OMP_NUM_THREADS", "1")
        demo_params.write(PARAMS)
        shutil.copy(ROOT / "versions.yaml", "versions.yaml")
        study = Study.open()
        for name in WHOLE:
            path = Path(f"artifacts/prompts/{name}.parquet")
            prepare.prepare(study.params.datasets[name], name, study.seed, path)
        save_model(folder / "model", list(pd.read_parquet("artifacts/prompts/squad.parquet")["prompt"][:300]))
        save_sae(folder / "sae")
        for stage in (inputs, prepare, extract, judge, encode, fit, transfer):
            stage.run(study)
        yield folder


def table(project, dataset):
    return pd.read_parquet(project / f"artifacts/prompts/{dataset}.parquet")


@pytest.mark.parametrize(
    ("dataset", "train", "test"),
    [("squad", (1000, 1000), (900, 900)), ("idk", (119, 123), (119, 123)), ("boolq", (500, 500), (500, 500))],
)
def test_splits_have_the_papers_sizes_and_share_no_passage_and_no_question(project, dataset, train, test):
    rows = table(project, dataset)
    counts = rows.groupby(["split", "label"]).size().to_dict()
    assert [(counts[part, 1], counts[part, 0]) for part in ("train", "test")] == [train, test]
    assert rows.groupby("group")["split"].nunique().max() == 1
    assert rows.groupby(rows["question"].map(normalised))["split"].nunique().max() == 1
    assert rows["id"].is_unique


def test_idk_is_the_papers_484(project):
    rows = table(project, "idk")
    assert len(rows) == 484
    assert rows["source"].value_counts().to_dict() == {
        "ACE-whQA-IDK-non-competitive.json": 246,
        "ACE-whQA-has-answer.json": 238,
    }
    assert not (rows["context"] == "Text").any()


@pytest.mark.parametrize("dataset", WHOLE)
def test_a_prompt_is_its_context_and_question_in_the_template(project, dataset):
    rows = table(project, dataset)
    expected = [prompt_templates.render("default", row.context, row.question) for row in rows.itertuples()]
    assert list(rows["prompt"]) == expected
    first = rows.iloc[0]
    assert first["prompt"].startswith("Passage: ")
    assert first["context"] in first["prompt"]
    assert first["question"] in first["prompt"]
    assert rows.loc[rows["label"] == 0, "answer"].isna().all()


def test_every_cell_of_the_transfer_table_is_there(project):
    for space, probes in ((f"layer_{LAYER}", {"residual", "mean_difference"}), ("random", {"sparse_1", "sparse_n"})):
        parts = [project / f"artifacts/transfer/{space}/{train}.rows.parquet" for train in FEW]
        found = pd.concat(map(pd.read_parquet, parts))
        assert probes <= set(found["probe"])
        pairs = {(row.train, row.test, row.test_variation) for row in found.itertuples()}
        tests = [(dataset, "default") for dataset in FEW] + [("few_squad", "terse")]
        assert pairs == {(train, *test) for train in FEW for test in tests}
        assert found["auc"].between(0, 1).all()
        assert (found["n_test"] + found["n_overlap"] == 60).all()
        assert (found.loc[found["in_domain"], "n_overlap"] == 0).all()


def test_a_byte_level_tokenizer_knows_every_word_and_data_check_says_how_long_prompts_are(project):
    made = activations.read_about(project / f"artifacts/activations/layer_{LAYER}/few_squad.0.safetensors")
    assert made["unknown_tokens"] == made["truncated_prompts"] == 0
    section = ModelParams(name=str(project / "model"), layers=(LAYER,))
    found = overview.describe_dataset(
        "squad", parse(loader_registry.DatasetParams, WHOLE["squad"], ""), 0, token_counts.counter(section)
    )
    assert (found.rows, found.answerable, found.unanswerable, found.groups) == (6078, 2910, 3168, 646)
    assert (found.n_train, found.n_test, found.prompts) == (2000, 1800, 3800)
    assert found.tokens.context == CONTEXT
    assert 150 < found.tokens.median < found.tokens.longest
    assert found.tokens.unknown == 0


@pytest.mark.skipif(not (ROOT / "models/demo").is_dir(), reason="models/demo is not pulled: dvc pull models.dvc")
def test_the_demos_tokenizer_says_how_much_of_the_real_text_it_does_not_know(monkeypatch):
    monkeypatch.chdir(ROOT)
    demo = {"name": "models/demo/model", "layers": [3], "device": "cpu"}
    count = token_counts.counter(ModelParams(**demo))
    found = overview.describe_dataset("idk", parse(loader_registry.DatasetParams, WHOLE["idk"], ""), 0, count)
    assert (found.prompts, found.tokens.beyond_context) == (484, 0)
    assert 0.4 < found.tokens.unknown / found.tokens.total < 0.9  # a micro-world's 280 words
    squad = overview.describe_dataset("squad", parse(loader_registry.DatasetParams, WHOLE["squad"], ""), 0, count)
    assert squad.tokens.context == 256
    assert 300 < squad.tokens.beyond_context < 500

    texts = ["Passage: Hugo lives in Rome .\nQuestion: where ?\nAnswer:", "zebra quux"]
    params = ModelParams(**demo)
    with pytest.raises(UserError, match=r"20% of the prompts' tokens are unknown \(at most 10%\)"):
        tokens.tokenise(*loading.load_model(params), texts, params)
