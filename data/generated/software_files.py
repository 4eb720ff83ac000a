"""Software tasks that no reward judges yet: patches, reviews, pages, styles, shell commands and configuration."""

import difflib
from collections.abc import Mapping
from random import Random

from data.generated.software_projects import RESOURCES, draw_project
from data.generating import Item, Maker, Response


def _item(task: str, question: str, answer: str, thinking: str, key: str = "") -> Item:
    return Item(question, (Response(answer, thinking),), domain="code", task=task, key=key)


def unified_diff(file: str, old: str, new: str) -> str:
    """Return the patch that turns the old text of a file into the new one, as git writes it."""
    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), f"a/{file}", f"b/{file}")
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _bug_patch(draw: Random) -> Item:
    project = draw_project(draw)
    return _item(
        "bug_patch",
        f"Issue: {project.issue}\n\nThe project:\n\n{project.shown()}\n\nGive a patch in unified diff format.",
        f"{project.why}\n\n```diff\n{unified_diff(project.file, project.wrong, project.right)}```",
        f"The issue is about `{project.bug.name}` in {project.file}. {project.why}",
        key=project.wrong,
    )


def _review(draw: Random) -> Item:
    """The review names the function and the first line of the file that has to change."""
    project = draw_project(draw)
    wrong, right = project.wrong.splitlines(), project.right.splitlines()
    line = next(n for n, (old, new) in enumerate(zip(wrong, right, strict=False), start=1) if old != new)
    numbered = "\n".join(f"{number:3} {text}" for number, text in enumerate(wrong, start=1))
    return _item(
        "review",
        f"Review `{project.file}`. Name the line with the bug, what users see of it, and the "
        f"mend.\n\n```\n{numbered}\n```",
        f"Line {line}, in `{project.bug.name}`: {project.why}\n\nUsers see: {project.issue}\n\nThe rest is fine.",
        f"Of the three functions `{project.bug.name}` does not do what its docstring says, at line {line}.",
        key=project.wrong,
    )


_COLOURS = ("teal", "navy", "tomato", "olive", "indigo", "crimson", "slategray", "darkgreen")


def _page(draw: Random) -> Item:
    resource = draw.choice(RESOURCES)
    least, most, method = draw.randint(0, 9), draw.randint(10, 999), draw.choice(("post", "get"))
    options = "\n".join(f'      <option value="{name}">{name.title()}</option>' for name in resource.groups)
    html = (
        f'<form action="/{resource.many}" method="{method}">\n'
        f'  <label for="{resource.label}">{resource.label.title()}</label>\n'
        f'  <input id="{resource.label}" name="{resource.label}" type="text" required>\n'
        f'  <label for="{resource.group}">{resource.group.title()}</label>\n'
        f'  <select id="{resource.group}" name="{resource.group}">\n{options}\n  </select>\n'
        f'  <label for="{resource.number}">{resource.number.title()}</label>\n'
        f'  <input id="{resource.number}" name="{resource.number}" type="number" min="{least}" max="{most}">\n'
        f'  <button type="submit">Save {resource.one}</button>\n</form>\n'
    )
    groups = ", ".join(resource.groups)
    return _item(
        "html",
        f"Write an HTML form that sends one {resource.one} to /{resource.many} by {method.upper()}: a required text "
        f"{resource.label}, a {resource.group} chosen from {groups}, and a number {resource.number} from {least} "
        f"to {most}. "
        "Each field has a label.",
        f"```html\n{html}```",
        "A label points to its field by id; the choice is a select; the number has min and max.",
    )


def _style(draw: Random) -> Item:
    resource, colour = draw.choice(RESOURCES), draw.choice(_COLOURS)
    gap, radius, width = draw.randint(4, 24), draw.randint(2, 16), draw.randint(160, 360)
    narrow = draw.choice((480, 600, 768))
    css = (
        f".{resource.one}-grid {{\n  display: grid;\n"
        f"  grid-template-columns: repeat(auto-fill, minmax({width}px, 1fr));\n  gap: {gap}px;\n}}\n\n"
        f".{resource.one}-card {{\n  border: 1px solid {colour};\n  border-radius: {radius}px;\n}}\n\n"
        f"@media (max-width: {narrow}px) {{\n  .{resource.one}-grid {{\n    grid-template-columns: 1fr;\n  }}\n}}\n"
    )
    return _item(
        "css",
        f"Write CSS for a grid of {resource.many}: `.{resource.one}-grid` with columns of at least {width}px and "
        "a gap of "
        f"{gap}px, one column below {narrow}px; `.{resource.one}-card` with a 1px {colour} border and corners of "
        f"{radius}px.",
        f"```css\n{css}```",
        "auto-fill with minmax makes as many columns as fit; a media query makes it one.",
    )


def _shell(draw: Random) -> Item:
    folder, suffix = draw.choice(("logs", "src", "data", "build", "backup")), draw.choice(("log", "csv", "json", "txt"))
    word, days, count = draw.choice(("ERROR", "timeout", "TODO", "refused")), draw.randint(2, 60), draw.randint(2, 30)
    size = draw.randint(1, 500)
    words, command = draw.choice(
        (
            (
                f"delete the .{suffix} files older than {days} days",
                f"find {folder} -name '*.{suffix}' -mtime +{days} -delete",
            ),
            (
                f"find in which of the .{suffix} files '{word}' occurs at least once and print the {count} first names",
                f"grep -rl --include='*.{suffix}' '{word}' {folder} | sort | head -n {count}",
            ),
            (
                f"list the {count} largest .{suffix} files with their sizes",
                f"find {folder} -name '*.{suffix}' -printf '%s %p\\n' | sort -rn | head -n {count}",
            ),
            (
                f"pack the .{suffix} files above {size} MB into {folder}.tar.gz",
                f"find {folder} -name '*.{suffix}' -size +{size}M -print0 | tar -czf {folder}.tar.gz --null -T -",
            ),
        )
    )
    return _item(
        "shell",
        f"In the folder `{folder}` and below, {words}. One command line for a GNU shell.",
        f"```bash\n{command}\n```",
        f"Names come from {'grep' if command.startswith('grep') else 'find'}; quotes keep the shell from "
        "expanding the star.",
    )


def _docker(draw: Random) -> Item:
    resource = draw.choice(RESOURCES)
    old, new = draw.sample(("3.9", "3.10", "3.11", "3.12", "3.13"), 2)
    port, user = draw.randint(3000, 9000), draw.choice(("app", "web", "service"))
    before = (
        f"FROM python:{old}\nWORKDIR /app\nCOPY . .\nRUN pip install -r requirements.txt\n"
        f'CMD ["python", "-m", "{resource.many}"]\n'
    )
    after = (
        f"FROM python:{new}-slim\nWORKDIR /app\nCOPY requirements.txt .\n"
        f"RUN pip install --no-cache-dir -r requirements.txt && useradd {user}\nCOPY . .\nUSER {user}\nEXPOSE {port}\n"
        f'CMD ["python", "-m", "{resource.many}"]\n'
    )
    return _item(
        "docker",
        f"Change this Dockerfile: Python {new} on the slim image, dependencies cached as long as requirements.txt "
        "stays, run "
        f"as a user `{user}`, port {port} exposed.\n\n```dockerfile\n{before}```",
        f"```dockerfile\n{after}```",
        "requirements.txt is copied alone first, so that its layer is kept; the user is made before it is switched to.",
    )


def _workflow(draw: Random) -> Item:
    resource = draw.choice(RESOURCES)
    versions = sorted(draw.sample((10, 11, 12, 13, 14), draw.randint(2, 4)))
    branch, minutes, folder = (
        draw.choice(("main", "develop", "release")),
        draw.randint(5, 60),
        draw.choice(("tests", "checks")),
    )
    listed = ", ".join(f'"3.{version}"' for version in versions)
    text = (
        f"name: {resource.many}\non:\n  push:\n    branches: [{branch}]\n  pull_request:\n\njobs:\n  test:\n"
        f"    runs-on: ubuntu-latest\n    timeout-minutes: {minutes}\n    strategy:\n      matrix:\n"
        f"        python: [{listed}]\n    steps:\n      - uses: actions/checkout@v4\n"
        "      - uses: actions/setup-python@v5\n        with:\n          python-version: ${{ matrix.python }}\n"
        f"      - run: pip install -e .[dev]\n      - run: pytest {folder}\n"
    )
    return _item(
        "workflow",
        f"Write a GitHub workflow named {resource.many}: on pushes to {branch} and on pull requests, install the "
        "package with its "
        f"`dev` extra and run pytest on `{folder}`, under Python {listed}, at most {minutes} minutes a job.",
        f"```yaml\n{text}```",
        "A matrix runs the job once a version; versions are quoted, since 3.10 would be the number 3.1.",
    )


MAKERS: Mapping[str, Maker] = {
    "bug_patch": _bug_patch,
    "review": _review,
    "html": _page,
    "css": _style,
    "shell": _shell,
    "docker": _docker,
    "workflow": _workflow,
}
