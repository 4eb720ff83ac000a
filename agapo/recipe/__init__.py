"""Typed recipes: what to run, as YAML, checked before any model is loaded. Imports no torch."""

from agapo.recipe.base import Recipe
from agapo.recipe.dpo import DPORecipe
from agapo.recipe.eval import EvalRecipe
from agapo.recipe.hardware import DescribedCluster
from agapo.recipe.keys import fingerprint
from agapo.recipe.read import load_cluster, load_recipe
from agapo.recipe.rl import RLRecipe
from agapo.recipe.sft import SFTRecipe

STAGES: dict[str, type[Recipe]] = {"sft": SFTRecipe, "rl": RLRecipe, "dpo": DPORecipe, "eval": EvalRecipe}
"""The recipe of each stage."""

__all__ = [
    "STAGES",
    "DPORecipe",
    "DescribedCluster",
    "EvalRecipe",
    "RLRecipe",
    "Recipe",
    "SFTRecipe",
    "fingerprint",
    "load_cluster",
    "load_recipe",
]
