"""The command line: `agapo {sft,rl,dpo,pairs,eval,curate,filter,check,plan,score} RECIPE key.path=value …`, and others.

Nothing heavy is imported until a stage runs, so that `--help` and the schema part of `check` are instant.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from agapo import __version__
from agapo.built_in import find_recipe
from agapo.errors import Interrupted, UserError
from agapo.forking.driver import start_forks
from agapo.signals import Stopped, exit_status, handled_by, stop_at_once

if TYPE_CHECKING:
    from agapo.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Post-training for language models: supervised fine-tuning, reinforcement learning with AGAPO, preferences.",
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False, callback=find_recipe)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Recipe keys to change, as key.path=value.", show_default=False)
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; it is made.", show_default=False)],
) -> None:
    """Lay out a project: the recipes, and a reward, a data source and a recipe of your own to begin with."""
    from agapo.starter import lay_out

    lay_out(folder)


@app.command()
def sft(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Fine-tune on dialogues."""
    from agapo.recipe import SFTRecipe, load_recipe

    loaded = load_recipe(SFTRecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address)
    from agapo.stages.sft.run import run_sft

    run_sft(loaded, recipe)


@app.command()
def rl(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Reinforce with AGAPO (or a peer's preset). A run that was stopped goes on."""
    from agapo.recipe import RLRecipe, load_recipe

    loaded = load_recipe(RLRecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address, trainers=False)
    from agapo.stages.rl.run import run_rl

    run_rl(loaded, recipe)


@app.command()
def dpo(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Learn from preferences between the model's own responses (SimPER or DPO)."""
    from agapo.recipe import DPORecipe, load_recipe

    loaded = load_recipe(DPORecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address)
    from agapo.stages.dpo.run import run_dpo

    run_dpo(loaded, recipe)


@app.command()
def pairs(
    recipe: RecipePath,
    overrides: Overrides = None,
    responses: Annotated[
        Path | None, typer.Option(help="Pair an earlier run's responses.jsonl by this recipe's policy; keep nothing.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, help="Pairs to show.")] = 6,
) -> None:
    """Build the preference pairs of a recipe and show them, without training."""
    from agapo.recipe import DPORecipe, load_recipe

    loaded = load_recipe(DPORecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address)
    from agapo.stages.dpo.run import run_pairs

    run_pairs(loaded, recipe, responses, samples)


@app.command("eval")
def evaluate(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Evaluate a model: accuracy, pass@k and maj@k by mode, set and language, thinking budgets, the needle test."""
    from agapo.recipe import EvalRecipe, load_recipe

    loaded = load_recipe(EvalRecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address, trainers=False)
    from agapo.stages.eval.run import run_eval

    run_eval(loaded, recipe)


@app.command()
def check(
    recipe: RecipePath,
    overrides: Overrides = None,
    schema: Annotated[bool, typer.Option(help="Check the recipe's keys and values only.")] = False,
) -> None:
    """Check a recipe without training: its keys, then its rewards, its data, its model and its arithmetic."""
    from agapo.preflight.check import check_recipe

    check_recipe(recipe, overrides or [], schema_only=schema)


@app.command()
def plan(
    recipe: RecipePath,
    cluster: Annotated[
        Path, typer.Option(help="The described cluster, a YAML file (recipes/cluster/).", callback=find_recipe)
    ],
    overrides: Overrides = None,
    prompt_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of a prompt, on average.")] = None,
    response_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of a response, on average.")] = None,
) -> None:
    """Plan a recipe on a described cluster: memory, places, time, and the least that would do."""
    _say_loading(f"plan: {recipe} on {cluster}")
    from agapo.preflight.planning.plan import plan_recipe

    plan_recipe(recipe, overrides or [], cluster, prompt_tokens=prompt_tokens, response_tokens=response_tokens)


@app.command()
def score(
    recipe: RecipePath,
    overrides: Overrides = None,
    responses: Annotated[
        Path | None, typer.Option(help="JSON lines with 'completion' and the columns that the reward reads.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write each response's scores here, as JSON lines.")] = None,
) -> None:
    """Score responses from a file with the recipe's rewards."""
    print(f"score: {responses or recipe}; loading the rewards of {recipe}", flush=True)
    from agapo.stages.score import score_file

    score_file(recipe, overrides or [], responses, out)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run's folder (outputs/rl/tiny).", show_default=False)],
    step: Annotated[int | None, typer.Option(help="The checkpoint's step; the newest by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the model goes; RUN/exports/step-N by default.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Send it to the Hugging Face hub by this name; a finished run's hf/ by default.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the hub's repository a private one.")] = False,
) -> None:
    """Export the model of a run's checkpoint, finished or not, for transformers and vLLM; also to the hub."""
    _say_loading(f"export: {run}")
    from agapo.stages.export import export_model

    export_model(run, step, out, push, private=private)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Runs' folders (outputs/rl/tiny).", metavar="RUN [RUN…]")],
) -> None:
    """Make a run's page, report.html in its folder; also of a run that goes on, or ended early."""
    from agapo.reporting import report_run

    for run in runs:
        print(report_run(run))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Runs' folders, two or more.", metavar="RUN RUN…")],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes (compare.html), or, of evaluations, the figures as JSON.")
    ] = None,
) -> None:
    """Lay the curves of several runs over each other, in one page; or compare evaluations, question by question."""
    from agapo.reporting import are_evaluations, compare_runs

    if are_evaluations(runs):
        _say_loading(f"compare: {len(runs)} evaluations")
        from agapo.stages.eval.compare import compare_evaluations

        compare_evaluations(runs, out)
    else:
        compare_runs(runs, page := out or Path("compare.html"))
        print(page)


@app.command()
def ablate(
    file: Annotated[Path, typer.Argument(help="What to compare, e.g. recipes/ablation/tiny.yaml.")],
    overrides: Overrides = None,
) -> None:
    """Compare variants of an RL recipe over seeds, at equal sampled tokens: a table with intervals, and curves."""
    from agapo.built_in import find_recipe
    from agapo.recipe.read import load_ablation

    own = load_ablation(find_recipe(file), overrides or ())
    _say_loading(f"ablate: {own.name or file.stem}")
    from agapo.stages.ablate.run import run_ablation

    run_ablation(own, file)


@app.command()
def curate(
    recipe: RecipePath,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show samples of what was dropped, and why.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Samples by source, filter and reason.")] = 3,
    out: Annotated[
        Path | None, typer.Option(help="Write the rows that stay here, as JSON lines (FOLDER/train.jsonl).")
    ] = None,
) -> None:
    """Run the filters of an SFT recipe over its training rows, and show what they drop."""
    from agapo.recipe import SFTRecipe, load_recipe

    loaded = load_recipe(SFTRecipe, recipe, overrides)
    _say_loading(loaded)
    from agapo.stages.curate import run_curate

    run_curate(loaded, explain=explain, out=out, samples=samples)


@app.command("filter")
def filter_prompts(
    recipe: RecipePath,
    overrides: Overrides = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses a prompt.")] = 8,
    drop_from: Annotated[float, typer.Option(help="Drop prompts with at least this share of correct responses.")] = 1.0,
    drop_below: Annotated[float, typer.Option(help="Drop prompts with a smaller share; 0 keeps the unsolved.")] = 0.0,
) -> None:
    """Keep the training prompts of an RL recipe that its starting model does not always solve."""
    from agapo.recipe import RLRecipe, load_recipe

    loaded = load_recipe(RLRecipe, recipe, overrides)
    _say_loading(loaded)
    start_forks(loaded.cluster.address, trainers=False)
    from agapo.stages.filter import run_filter

    run_filter(loaded, recipe, samples=samples, drop_from=drop_from, drop_below=drop_below)


@app.command()
def executor(
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.")] = 8787,
    slots: Annotated[int, typer.Option(min=1, help="Programs at once.")] = os.cpu_count() or 1,
) -> None:
    """Run model-written programs for other machines, in the sandbox of this one (see docs/sandbox.md)."""
    from agapo.sandbox import problem
    from agapo.sandbox.remote import serve

    if reason := problem():
        raise UserError(f"no sandbox: {reason}")
    server = serve(host, port, slots)
    print(f"running programs for http://{host}:{server.server_address[1]} ({slots} at once); Ctrl-C stops", flush=True)
    with contextlib.suppress(Stopped):
        server.serve_forever()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line; a mistake of the user's is one line on stderr and exit status 1.

    Ctrl-C is status 130, and SIGTERM, which saves what Ctrl-C does, 143: a scheduler sees that its signal was heeded.
    """
    # Read when torch loads: threads that wait sleep instead of spinning, which on shared cores is 4 times as fast.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with handled_by(stop_at_once):
            app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(f"error: {error}", style="red", markup=False)
        sys.exit(1)
    except Interrupted as stopped:
        _say_stopped(str(stopped) or "stopped; the same command goes on from the last finished step")
    except Stopped:
        _say_stopped("stopped; the same command goes on from what is saved")


def _say_loading(begun: "Recipe | str") -> None:
    """Say what is begun: what comes next, the imports, takes up to ten seconds, and more on busy cores."""
    if not isinstance(begun, str):
        begun = f"{begun.stage}: {begun.run.name}"
    print(f"{begun}; loading PyTorch and what goes with it", flush=True)


def _say_stopped(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(text)
    sys.exit(exit_status())
