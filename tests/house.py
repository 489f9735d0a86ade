"""How large the code is, and how it hangs together.

    python tests/house.py --json

Counts modules and lines of the packages under `platform/`, import circles (imports within functions included, those for
type checkers alone not), the files that a request for a page runs through (models and features stores not counted), and
words that were given up. The last line with `--json` is one object.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import click
import grimp
import networkx

ROOT = Path(__file__).parents[1]
PLATFORM = ROOT / "platform"
UNCOUNTED = ("playbill/models/", "playbill_feast/")
WORDS = ("gladness", "shelf", "salvage", "canary", "canaries")
"""Words of an earlier vocabulary, wherever they stand."""
NAMES = ("asked", "told", "said", "Asked", "Told", "Said", "Served", "Slot", "KeptAnswers", "KeptStates", "MemberFacts")
"""Names that say nothing of what they hold."""
EARLIER = re.compile(r"earlier_option|EARLIER_KEYS")
"""Lines that accept what was written before."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
def main(as_json: bool) -> None:
    """Measure the packages.

    Example: python tests/house.py --json
    """
    found = measured()
    for name, value in found.items():
        click.echo(f"{name:>32}  {value}")
    if as_json:
        click.echo(json.dumps(found))


def measured() -> dict[str, Any]:
    """Return every figure by name."""
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    own = {path: count for path, count in lines.items() if path.name != "__init__.py"}
    packages = sorted({path.relative_to(PLATFORM).parts[0] for path in lines})
    longest = max(own, key=lambda path: own[path])
    return {
        "packages": len(packages),
        "modules": len(lines),
        "median_lines": int(statistics.median(own.values())),
        "longest": own[longest],
        "longest_module": longest.relative_to(PLATFORM).as_posix(),
        "circles": len(circles(packages)),
        **{
            f"lines_{package}": sum(n for path, n in lines.items() if path.is_relative_to(PLATFORM / package))
            for package in packages
        },
        "lines": sum(lines.values()),
        "files_of_a_request": len(files_of_a_request()),
        "class_names_that_stand_twice": len(class_names_that_stand_twice()),
        "words_that_may_not_come_back": len(list(given_up_words())),
    }


def modules() -> Iterator[Path]:
    """Yield every module under `platform/`."""
    yield from sorted(PLATFORM.rglob("*.py"))


def circles(packages: list[str]) -> list[list[str]]:
    """Return the modules of each import circle."""
    graph = grimp.build_graph(*packages, exclude_type_checking_imports=True, cache_dir=None)
    imports = networkx.DiGraph(
        (module, other) for module in graph.modules for other in graph.find_modules_directly_imported_by(module)
    )
    return [sorted(found) for found in networkx.strongly_connected_components(imports) if len(found) > 1]


def files_of_a_request() -> list[str]:
    """Return the files whose functions run while a page is answered, from `Recommender.recommend` on."""
    from fixtures.serving_world import FakeScorer, make_recommender, make_workspace, serve_with
    from playbill.serving import RecommendRequest

    entered: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            entered.add(frame.f_code.co_filename)

    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder))
        recommender = make_recommender(workspace, serve_with(workspace, FakeScorer()))
        request = RecommendRequest(member_id="42", canvas="home")
        recommender.recommend(request)
        sys.setprofile(note)
        try:
            recommender.recommend(request)
        finally:
            sys.setprofile(None)
    paths = (Path(name) for name in entered if name.startswith(str(PLATFORM)))
    names = sorted(path.relative_to(PLATFORM).as_posix() for path in paths)
    return [name for name in names if not name.startswith(UNCOUNTED)]


def class_names_that_stand_twice() -> list[str]:
    """Return the names of classes that more than one module defines."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in modules())
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return sorted(name for name, count in names.items() if count > 1)


def given_up_words() -> Iterator[tuple[str, int, str]]:
    """Yield file, line and word of every use of a word or a name that was given up."""
    words = re.compile(rf"(?<![A-Za-z])({'|'.join(WORDS)})(?![A-Za-z])", re.IGNORECASE)
    names = re.compile(rf"(?:{'|'.join(NAMES)})")
    for path in modules():
        file = path.relative_to(PLATFORM).as_posix()
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            if not EARLIER.search(line):
                yield from ((file, number, word) for word in words.findall(line))
        for token in tokenize.generate_tokens(iter(lines).__next__):
            if token.type == tokenize.NAME and names.fullmatch(token.string.strip("_")):
                yield file, token.start[0], token.string


if __name__ == "__main__":
    main()
