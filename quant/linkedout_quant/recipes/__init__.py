"""Recipes of trainings, as small YAML files, by name (`NAMES`). A file of your own is named by its path."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import msgspec

from linkedout_edge.config import ModelConfig
from linkedout_edge.errors import ArgumentError, unknown
from linkedout_quant.training.loop import StageRecipe

NAMES = ("base", "wide", "refine", "finish", "axes", "larger", "clean", "smoke")


class Crops(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many augmented crops the teacher looks at, and of which photos."""

    shards: int = 100
    """Files of `count` crops that are kept on disk. Live ones are not: the tower's steps say how many there are."""
    count: int = 2000
    side: int = 176
    """Photos lie as squares of this side in the memory of the device that trains, where crops are made live."""
    weights: dict[str, float] = {}
    """How often a collection of photos is drawn, beside others that have 1; 0: never. Shards name collections."""

    def weight(self, collection: str) -> float:
        """Of a collection, by name."""
        return self.weights.get(collection, 1.0)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that decides a training, but its data and its teacher."""

    model: ModelConfig = ModelConfig()
    crops: Crops = Crops()
    axes: int = 0
    """Batches of clips after the stage clips, of whose features the tokens then keep most; 0: as they were trained."""
    tower: StageRecipe = StageRecipe("tower", 7000, 64, 2e-3, warmup=200)
    language: StageRecipe = StageRecipe("language", 700, 128, 1.5e-3, warmup=50)
    clips: StageRecipe = StageRecipe("clips", 3000, 16, 1.5e-3, warmup=100)


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        ArgumentError: there is no such recipe, or the file is none; the message names the field.
    """
    path = Path(name)
    if name in NAMES:
        text = files(__package__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        text = path.read_text(encoding="utf-8")
    else:
        raise ArgumentError(unknown("recipe", name, NAMES) + " A recipe of your own is named by the path of its .yaml")
    try:
        return msgspec.yaml.decode(text, type=Recipe)
    except msgspec.DecodeError as e:  # ValidationError is one, and its message names the field
        raise ArgumentError(f"{name} is no recipe: {e}; compare it with one of {', '.join(NAMES)}") from e
