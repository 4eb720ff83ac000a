"""Build these pages and the README as a web site, into `build/site`: `make docs`.

Pages are kept as GitHub shows them. For the site, what marks a command for the tests goes (```bash run), and links to
files beyond `docs/` become their names.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"


def main() -> int:
    """Write the pages and build the site. Returns the status: not 0 where Zensical has something to say of a page."""
    pages = BUILD / "docs"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir(parents=True)
    for path in HERE.iterdir():
        if path.suffix == ".md":
            (pages / path.name).write_text(for_site(path.read_text(), beyond="../"))
        elif path.suffix in {".png", ".svg"}:
            shutil.copy(path, pages)
    readme = (HERE.parent / "README.md").read_text().replace("](docs/", "](")
    known = "|".join(re.escape(path.name) for path in HERE.iterdir())
    (pages / "index.md").write_text(for_site(readme, beyond=rf"(?!http|#|(?:{known})\b)"))
    shutil.copy(HERE / "zensical.toml", BUILD)
    zensical = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(BUILD / "zensical.toml")]
    return subprocess.run(zensical, check=False).returncode


def for_site(text: str, *, beyond: str) -> str:
    """Return a page as the site has it. `beyond`: how links to other files than pages begin, a regular expression."""
    text = re.sub(r"^```bash [\w-]+$", "```bash", text, flags=re.MULTILINE)
    return re.sub(rf"\[`?([^\]`]*)`?\]\({beyond}[^)]*\)", r"`\1`", text)


if __name__ == "__main__":
    sys.exit(main())
