"""The model card: what a model was made from and with, and what it came to, as the README.md beside its weights."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

import agapo
from agapo.recipe import Recipe
from agapo.tracking.files import write_text_atomic
from agapo.tracking.lineage import COLUMNS, LEGEND, cells, lineage_entry, lineage_of, same_test
from agapo.tracking.provenance import noted_start
from agapo.tracking.run_directory import RunDirectory

STAGES = {"sft": "supervised fine-tuning", "rl": "reinforcement learning", "dpo": "preference learning"}


def write_model_card(run: RunDirectory, recipe: Recipe, summary: Mapping[str, Any]) -> None:
    """Write `hf/README.md`: lineage, data, results and recipe of a finished run."""
    write_text_atomic(run.hf / "README.md", model_card(run, recipe, summary))


def model_card(run: RunDirectory, recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """Return the card as Markdown, with the front matter that the Hugging Face hub reads."""
    way = [*summary.get("lineage", []), lineage_entry(run.path, summary)]
    return "\n".join(
        [
            _front_matter(recipe, way),
            f"# {recipe.run.name}\n",
            f"Made by {STAGES.get(recipe.stage, recipe.stage)} with agapo {agapo.__version__}.\n",
            *_exported(summary.get("exported")),
            _usage(run.hf),
            "## Where it came from\n",
            *_way(way),
            "\n## Data\n",
            *_data(recipe, run.path),
            *_pairs(_without_places(summary.get("pairs"), run.path)),
            "\n## Results\n",
            *_held_out(summary.get("held_out")),
            *_results(way),
            *_guards(summary.get("guards")),
            *_recipe(run.path),
        ]
    )


def checkpoint_card(run: Path, recipe: Recipe, step: int) -> str:
    """Return the card of a checkpoint's model; `run`: its run's folder."""
    return "\n".join(
        [
            _front_matter(recipe, lineage_of(noted_start(run) or recipe.model.path)),
            f"# {recipe.run.name}, step {step}\n",
            f"{origin_of_checkpoint(run, step)} ({STAGES.get(recipe.stage, recipe.stage)}), exported "
            f"from its checkpoint with agapo {agapo.__version__}.",
            *_recipe(run),
        ]
    )


def origin_of_checkpoint(run: Path, step: int) -> str:
    """Return how a checkpoint's card says what the weights are."""
    return f"The weights of step {step} of the run `{run.resolve().name}`"


def _recipe(run: Path) -> list[str]:
    content = _without_places(yaml.safe_load((run / "recipe.yaml").read_text()), run)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True).strip()
    return ["\n## Recipe\n", "```yaml", text, "```\n"]


def _without_places(value: Any, run: Path) -> Any:
    """Return plain values without places on the machine that made them: a card is for others.

    A path in the project of the run in folder `run` is shown from there, of another its last name alone; inside a
    longer text (`--files=/home/me/x`) as well.
    """
    if isinstance(value, Mapping):
        return {key: _without_places(item, run) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item, run) for item in value]
    if not isinstance(value, str | Path):
        return value
    path = Path(value)
    # A stop text may begin with a stroke as well.
    if isinstance(value, Path) or (path.is_absolute() and "\n" not in value):
        return _without_place(path, run) if len(path.parts) > 2 else value
    inside = value.replace(f"{run.resolve().parents[2]}/", "")
    return INSIDE.sub(lambda found: _without_place(Path(found[0]), run), inside)


NAME = r"[^\s/'\"`,;:=()<>\[\]{}|]+"
INSIDE = re.compile(rf"(?:(?<![\w./~}}])|(?<=file://))/{NAME}(?:/{NAME})+")
"""A path inside a text, of two names or more (a stop text may begin with a stroke); no part of an address or path."""


def _without_place(path: Path, run: Path) -> str:
    project = run.resolve().parents[2]
    return str(path.relative_to(project)) if path.is_relative_to(project) else hub_name(path) or path.name


def hub_name(model: str | Path) -> str | None:
    """Return the hub's name of a model: it is one, or a folder of the hub's cache; None where it is not known."""
    if not Path(model).is_absolute():
        return str(model)
    cached = next((part for part in Path(model).parts if part.startswith("models--")), "")
    return cached.removeprefix("models--").replace("--", "/", 1) or None


def _front_matter(recipe: Recipe, way: Iterable[Mapping[str, Any]]) -> str:
    bases = [hub_name(entry["model"]) for entry in way if "stage" not in entry]
    fields = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["agapo", recipe.stage],
        # A folder of one's own is no name that the hub knows.
        **({"base_model": bases[0]} if bases and bases[0] else {}),
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _exported(exported: Mapping[str, Any] | None) -> list[str]:
    return [f"The weights are those of step {exported['step']}: {exported['why']}.\n"] if exported else []


def _usage(folder: Path) -> str:
    """Return how to ask the model of a folder, with the switch for thinking where its chat template has one."""
    template = folder / "chat_template.jinja"
    has_switch = template.is_file() and "enable_thinking" in template.read_text(encoding="utf-8")
    comment, argument = (
        ("# enable_thinking=False answers at once.\n", "enable_thinking=True, ") if has_switch else ("", "")
    )
    return USAGE.format(comment=comment, argument=argument)


USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained(".")  # the folder of this file, or the model's name on the hub
tokenizer = AutoTokenizer.from_pretrained(".")
messages = [{{"role": "user", "content": "..."}}]
{comment}inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, {argument}return_dict=True, return_tensors="pt"
)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=256)[0][inputs["input_ids"].shape[1]:]))
```
"""


def _way(way: Iterable[Mapping[str, Any]]) -> list[str]:
    lines = []
    for number, entry in enumerate(way, start=1):
        if "stage" not in entry:
            lines.append(f"{number}. `{hub_name(entry['model']) or Path(entry['model']).name}`")
            continue
        stage = STAGES.get(entry["stage"], entry["stage"])
        recipe = Path(entry["recipe"]).name if entry.get("recipe") else "?"
        lines.append(f"{number}. {stage}: run `{entry['run']}`, recipe `{recipe}`, seed {entry.get('seed')}")
    return lines


def _data(recipe: Recipe, run: Path) -> list[str]:
    lines = []
    for section in ("data", "prompts"):
        own = getattr(recipe, section, None)
        for name, source in (own.parts if own else {}).items():
            where = f" from `{_without_places(source.path, run)}`" if source.path else ""
            args = f" with {_without_places(source.args, run)}" if source.args else ""
            lines.append(f"- {section}, {name}: `{source.source}`{where}{args}")
    return lines


def _held_out(held_out: Mapping[str, Any] | None) -> list[str]:
    if not held_out:
        return []
    before, after = (held_out["loss"][when] for when in ("before", "after"))
    return [f"Loss on {held_out['dialogues']} held-out dialogues, in nats a token: {before:.4f} → {after:.4f}.\n"]


def _results(way: Iterable[Mapping[str, Any]]) -> list[str]:
    entries, others = same_test(list(way))
    if not entries:
        return []
    columns = ["after", "mode", *COLUMNS]
    left_out = f" {others}" if others else ""
    lines = [f"Greedy answers to the same held-out questions after each stage. {LEGEND}{left_out}\n"]
    lines += [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for entry in entries:
        for mode, found in entry["measures"].items():
            lines.append(f"| {' | '.join([str(entry['stage']), mode, *cells(found)])} |")
    return lines


def _pairs(pairs: Mapping[str, Any] | None) -> list[str]:
    """What preference learning was taught; nothing for the other stages."""
    if not pairs:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in pairs["by_kind"].items())
    if not pairs["prompts"]:
        where = pairs["policy"]["rows"]
        return [f"- pairs: {pairs['pairs']} ({kinds}) of `{where['source']}` {where['path'] or where['args']}"]
    return [
        f"- pairs: {pairs['pairs']} ({kinds}) from {pairs['prompts']} prompts, policy `{pairs['policy']['policy']}`; "
        f"mean tokens: chosen {pairs['chosen_tokens']}, rejected {pairs['rejected_tokens']}"
    ]


def _guards(guards: Iterable[Mapping[str, Any]] | None) -> list[str]:
    """Where preference learning moved the model further than its recipe wants."""
    if guards is None:
        return []
    tripped = [
        f"- {item['guard']}: {item['value']:.3f}, at most {item['limit']:g} wanted" for item in guards if not item["ok"]
    ]
    return ["\n## Guards\n", *(tripped or ["All within the limits of the recipe."])]
