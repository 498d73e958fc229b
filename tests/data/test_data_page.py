"""docs/data.md names what there is."""

from pathlib import Path

from sae_transfer.data.loaders.loader_registry import LOADERS, DatasetParams

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text()


def test_every_key_and_every_loader_is_explained():
    for name in (*DatasetParams.model_fields, *LOADERS):
        assert f"`{name}`" in PAGE, name
