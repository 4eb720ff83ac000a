"""Typed recipes: what to run, as YAML, checked before any model is loaded. Imports no torch."""

from agapo.recipe.base import Recipe, fingerprint, load_recipe
from agapo.recipe.evaluation import EvalRecipe
from agapo.recipe.rl import RLRecipe
from agapo.recipe.sft import SFTRecipe

__all__ = ["EvalRecipe", "RLRecipe", "Recipe", "SFTRecipe", "fingerprint", "load_recipe"]
