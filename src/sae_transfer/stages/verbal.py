"""verbal: how likely the model itself is to abstain, on every dataset's test rows. Where it is off, empty tables."""

import numpy as np
import pandas as pd

from sae_transfer import config, models, verbal
from sae_transfer.models import ModelParams
from sae_transfer.probes import Probe
from sae_transfer.stages import inputs, run
from sae_transfer.stages.inputs import StudyParams
from sae_transfer.stages.testing import Collected, conditions
from sae_transfer.verbal import VerbalParams

# Nothing is trained, so its rows stand where B is both A and B, with n_train 0; its score is a logit already.
PROBE = Probe("verbal", "verbal", np.ones(1), 0.0)


def verbal_judgement() -> None:
    params = config.read()
    study = config.section(params, StudyParams, "study")
    chosen = config.section(params, VerbalParams, "verbal")
    model_params = config.section(params, ModelParams, "model")
    found = Collected("verbal", model_params.name, layer=None)
    if chosen.abstaining:
        model, tokenizer = models.load_causal_model(model_params)
        abstaining = verbal.first_tokens(tokenizer, chosen.abstaining)
        for test in study.datasets:
            tested = list(conditions(test, inputs.prompt_table(test), params))
            asked = pd.concat([_asked(condition.prompts, model_params) for condition in tested]).drop_duplicates()
            texts, chat = list(asked["prompt"]), list(asked["chat"])
            odds = verbal.answering_log_odds(model, tokenizer, texts, abstaining, model_params, chat)
            by_prompt = dict(zip(asked.itertuples(index=False, name=None), odds, strict=True))
            for condition in tested:
                if condition.name == "test":
                    rows = _asked(condition.prompts, model_params).itertuples(index=False, name=None)
                    score = np.array([by_prompt[row] for row in rows])[:, None]
                    found.add(test, [PROBE], condition, {"space": score}, None, params)
    found.write()


def _asked(prompts: pd.DataFrame, params: ModelParams) -> pd.DataFrame:
    return prompts[["prompt"]].assign(chat=prompts["chat"].fillna(params.chat_template).astype(bool))


if __name__ == "__main__":
    run(verbal_judgement)
