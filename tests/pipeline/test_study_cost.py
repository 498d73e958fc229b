"""Bytes against real weights and the files that are written; seconds against the demo's measured run."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors import safe_open

from sae_transfer.artifacts import activations
from sae_transfer.core.errors import UserError
from sae_transfer.core.params_section import parse
from sae_transfer.data.loaders.loader_registry import DatasetParams
from sae_transfer.model.model_params import SaeParams
from sae_transfer.pipeline import study_cost
from sae_transfer.pipeline.params import Params

ROOT = Path(__file__).parents[2]
GEMMA = yaml.safe_load((ROOT / "presets/gemma-2-9b-it.yaml").read_text()) | {
    "study": {"datasets": ["squad", "idk"], "saes": ["res_20", "res_31"]},
    "model": {
        "name": "google/gemma-2-9b-it",
        "layers": [20, 31],
        "dtype": "bfloat16",
        "chat_template": True,
    },
    "saes": {
        f"res_{layer}": {
            "layer": layer,
            "release": "gemma-scope-9b-it-res-canonical",
            "id": f"layer_{layer}/width_131k/canonical",
        }
        for layer in (20, 31)
    },
    "datasets": {
        "squad": {
            "loader": "squad",
            "path": "data/external/squad",
            "n_train": 2000,
            "n_test": 1800,
            "variations": ["terse", "default", "polite"],
        },
        "idk": {"loader": "idk", "path": "data/external/idk", "n_train": 242, "n_test": 242},
    },
    "probe": {},
    "transfer": {},
    "bootstrap": {"resamples": 100, "seeds": 20},
}
H100 = 6e14  # FLOP/s


def cost(params=GEMMA, rate=H100, on_cpu=False, **changes):
    changed = {section: params[section] | values for section, values in changes.items()}
    return study_cost.estimate_cost(parse(Params, params | changed), rate, on_cpu)


@pytest.fixture
def demo(tmp_path, monkeypatch):
    if not (ROOT / "models/demo").is_dir():
        pytest.skip("models/demo is not pulled: dvc pull models.dvc")
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    return yaml.safe_load((ROOT / "presets/demo.yaml").read_text())


def held_bytes(path):
    with safe_open(path, framework="numpy") as weights:
        return sum(weights.get_tensor(name).nbytes for name in weights.keys())


def test_the_bytes_of_the_demos_weights_are_exact(demo):
    found = cost(demo)
    assert found.model == held_bytes("models/demo/model/model.safetensors")
    saes = [f"models/demo/saes/{name}/sae_weights.safetensors" for name in demo["study"]["saes"]]
    assert found.saes == sum(map(held_bytes, saes))
    assert found.download == 0


def test_the_bytes_of_activations_are_those_that_are_written(demo, tmp_path):
    rows = 4400  # five datasets of 440 rows, one of them under six templates
    path = tmp_path / "layer_2.safetensors"
    activations.write(path, np.zeros((rows, 128), np.float32), [str(i) for i in range(rows)], {"layer": 2})
    found = cost(demo)
    assert found.prompts == rows
    assert found.activations == 2 * held_bytes(path)
    assert cost(demo, model={"layers": [2]}, study={"saes": ["narrow_2"]}).activations == found.activations // 2


def test_the_seconds_of_the_demo_are_within_a_factor_of_two_of_those_measured(demo):
    measured = 129  # benchmarks/RESULTS.md, on two cores with 0.08 TFLOP/s
    assert measured / 2 < sum(cost(demo | {"jobs": 2}, 8e10).seconds.values()) < measured * 2


def test_gemma_2_9b_before_anything_is_downloaded():
    found = cost()
    sae = 4 * (2 * 3584 * 131_072 + 2 * 131_072 + 3584)  # 3.8 GB, as facts of the published SAEs say
    assert 3.7e9 < sae < 3.8e9
    assert found.saes == 2 * sae
    assert found.download == 2 * 9_241_705_984 + 2 * sae
    layer = 2 * 3584 * 256 * (16 + 8) + 3 * 3584 * 14_336 + 4 * 3584
    assert found.model == 2 * (256_000 * 3584 + 32 * layer + 3584)
    assert found.prompts == 3 * 3800 + 484
    assert found.activations == found.prompts * 2 * 3584 * 4
    assert found.disk == found.download + 2 * (found.activations + found.features)
    assert found.model < found.device < found.model + 3e9
    # 2 FLOPs a weight and token, the embeddings aside; attention adds a little
    plain = 2 * found.tokens * (found.model / 2 - 256_000 * 3584)
    assert plain < found.flops < 1.05 * plain


def test_what_costs_more_is_estimated_to_cost_more():
    base = cost()
    assert sum(cost(rate=2 * H100).seconds.values()) < sum(base.seconds.values())
    assert cost(model={"layers": [20]}, study={"saes": ["res_20"]}).flops < base.flops
    assert cost(model={"dtype": "float32"}).model == 2 * base.model
    assert cost(model={"tokens_per_batch": 65_536}).device > base.device
    assert cost(on_cpu=True).host > base.host


@pytest.mark.parametrize(
    ("release", "id_", "width"),
    [
        ("gemma-scope-9b-it-res-canonical", "layer_20/width_16k/canonical", 16_384),
        ("gemma-scope-2-4b-it-res", "layer_17_width_262k_l0_medium", 262_144),
        ("gemma-scope-2-4b-it-res", "layer_17_width_1m_l0_big", 1_048_576),
        ("gpt2-small-res-jb", "blocks.6.hook_resid_pre", 24_576),
        ("llama-3.1-8b-instruct-andyrdt", "resid_post_layer_19_trainer_1", 131_072),
    ],
)
def test_the_width_of_an_sae_is_read_from_its_name(release, id_, width):
    assert study_cost.sae_width("x", SaeParams(layer=1, release=release, id=id_)) == width


def test_what_is_not_known_is_said():
    with pytest.raises(UserError, match=r"model org/new: its shape is not known here"):
        cost(model={"name": "org/new"})
    with pytest.raises(UserError, match=r"saes\.x: its width is not known here"):
        study_cost.sae_width("x", SaeParams(layer=1, release="mine", id="y"))


def test_prompts_are_counted_once_a_template():
    sizes = {"loader": "table", "path": "x", "n_train": 6, "n_test": 4}
    assert study_cost.n_prompts(DatasetParams(**sizes)) == 10
    assert study_cost.n_prompts(DatasetParams(**sizes, variations=["terse", "default", "terse"])) == 20
