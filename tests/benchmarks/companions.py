"""Lists of titles like a title against companions that anybody expects: sequels, films of one maker, films of a kind.

Example: python tests/benchmarks/companions.py --json
Known:   python tests/benchmarks/companions.py --project FOLDER --workspace ml_100k --json

`companions.yaml` beside this file has the titles. Families are dealt into two halves by a hash of their name; what is
chosen by looking at lists was chosen on the first (`tuned`), and the other (`untouched`) only reports. Without
`--project` MovieLens-100K is fetched and `everycanvas` is trained as `playbill quickstart` does; with it, the version
that its workspace serves is asked. `ours` is the list that `more_like_this` serves to someone without a history;
`co_play` is the cosine of who played the titles, `ease` EASE's weights, both from every play of the log.
The last line is one JSON object: recall@10 of all, tuned, untouched, by kind, for a title's place in the top 10; worst.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import yaml
from rich.console import Console
from rich.table import Table

from playbill.config import ProjectFolder, Workspace
from playbill.evaluation.baselines.ease import play_matrix
from playbill.evaluation.baselines.item_knn import DEFAULT_SHRINKAGE, similarities
from playbill.evaluation.cases.event_log import TitleOrder
from playbill.models.ease import DEFAULT_PENALTY, solve_most_played
from playbill.serving import Recommender, RecommendRequest
from playbill.serving.local import LocalRecommender
from playbill.tables import Tables

LIST = Path(__file__).with_name("companions.yaml")
K = 10
MODEL = "everycanvas"
HALVES = ("tuned", "untouched")
_ARTICLE = re.compile(r"^(.*), (The|A|An|La|Le|Les|Il|Das|Der|Die|El)( \(.*)?$")
_YEAR = re.compile(r"\s*\((\d{4})\)$")


@dataclass(frozen=True)
class Source:
    """A title whose list is judged.

    Args:
        title_id: Of it.
        name: Of it, with its year.
        companions: Ids of those that are expected beside it.
        family: What they are.
        kind: Why they belong together: franchise, maker or kind.
    """

    title_id: str
    name: str
    companions: frozenset[str]
    family: str
    kind: str

    @property
    def half(self) -> str:
        """The half that its family was dealt into."""
        return HALVES[hashlib.sha256(self.family.encode()).digest()[0] % 2]


def sources_of(titles: pl.DataFrame, families: list[dict]) -> list[Source]:
    """Return the sources of those families of which a catalogue has two titles or more."""
    ids = {_canonical(row["name"], row["release_date"]): row["title_id"] for row in titles.iter_rows(named=True)}
    found = []
    for family in families:
        spellings = [(name, one) for name in family["titles"] for one in name.split(" | ") if one in ids]
        here = {name: ids[one] for name, one in spellings}
        for name in family.get("sources", family["titles"]):
            if name in here and len(here) > 1:
                companions = frozenset(here.values()) - {here[name]}
                found.append(Source(here[name], name, companions, family["family"], family["kind"]))
    return found


def _canonical(name: str, release: object) -> str:
    """Return a name as the list has it: "The Godfather (1972)" of "Godfather, The (1972)"."""
    dated = _YEAR.search(name)
    year = dated[1] if dated else getattr(release, "year", None)
    bare = _YEAR.sub("", name)
    turned = _ARTICLE.match(bare)
    if turned:
        bare = f"{turned[2]} {turned[1]}{turned[3] or ''}"
    return f"{bare} ({year})"


def recall(listed: list[str], companions: frozenset[str]) -> float:
    """Return the share of the companions that are listed, of those that K places can hold."""
    return len(companions.intersection(listed[:K])) / min(K, len(companions))


def baselines(tables: Tables, titles: list[str]) -> dict[str, Callable[[str], list[str]]]:
    """Return lists by cosine and by EASE's weights, from every play of the log."""
    order = TitleOrder(tuple(titles))
    plays = play_matrix(order, tables.interactions().filter(pl.col("action") == "play"))
    cosine = similarities(plays, len(titles), DEFAULT_SHRINKAGE).T.toarray()
    most, weights = solve_most_played(plays, DEFAULT_PENALTY, len(titles))
    ease = np.zeros_like(cosine)
    ease[np.ix_(most, most)] = weights
    place = {title: column for column, title in enumerate(titles)}

    def by(scores: np.ndarray) -> Callable[[str], list[str]]:
        return lambda source: [titles[column] for column in np.argsort(-scores[place[source]], kind="stable")[:K]]

    return {"co_play": by(cosine), "ease": by(ease)}


def served_list(recommender: Recommender) -> Callable[[str], list[str]]:
    """Return what the canvas shows to someone without a history."""

    def of(source: str) -> list[str]:
        request = RecommendRequest(canvas="more_like_this", source_title_id=source, k=K, rows=False)
        return [item.title_id for item in recommender.recommend(request).items]

    return of


def judge(sources: list[Source], lists: Mapping[str, Callable[[str], list[str]]]) -> dict[str, np.ndarray]:
    """Return [S] recall of each way to make lists."""
    return {name: np.array([recall(of(one.title_id), one.companions) for one in sources]) for name, of in lists.items()}


def summary(sources: list[Source], found: Mapping[str, np.ndarray]) -> dict:
    """Put means together: of all sources, of each half, of each kind."""

    def means(chosen: np.ndarray) -> dict[str, float]:
        return {name: round(float(values[chosen].mean()), 4) for name, values in found.items()}

    halves, kinds = np.array([one.half for one in sources]), np.array([one.kind for one in sources])
    worst = sorted(zip(found["ours"].tolist(), (one.name for one in sources), strict=True))[:10]
    return {
        "recall@10": means(np.ones(len(sources), np.bool_)),
        **{half: {**means(halves == half), "sources": int((halves == half).sum())} for half in HALVES},
        "kinds": {kind: {**means(kinds == kind), "sources": int((kinds == kind).sum())} for kind in np.unique(kinds)},
        "sources": len(sources),
        "worst": {name: round(value, 2) for value, name in worst},
    }


def show(result: dict) -> None:
    """Print the table."""
    table = Table("recall@10", "sources", *result["recall@10"])
    parts = {"all": {**result["recall@10"], "sources": result["sources"]}}
    for name, row in {**parts, **{half: result[half] for half in HALVES}, **result["kinds"]}.items():
        table.add_row(name, str(row["sources"]), *(f"{row[way]:.3f}" for way in result["recall@10"]))
    Console().print(table)


def run(workspace: Workspace, model: str | None) -> dict:
    """Judge the lists of the version that a workspace serves, or of a given one."""
    tables = Tables(workspace)
    titles = tables.titles()
    sources = sources_of(titles, yaml.safe_load(LIST.read_text(encoding="utf-8")))
    recommender, _ = LocalRecommender(workspace, model).current()
    lists = {"ours": served_list(recommender), **baselines(tables, titles["title_id"].to_list())}
    return summary(sources, judge(sources, lists))


def quickstarted(folder: Path) -> Workspace:
    """Fetch, train and register as `playbill quickstart` does, in a project of its own."""
    for command in (["init", str(folder)], ["--project", str(folder), "quickstart"]):
        subprocess.run([sys.executable, "-m", "playbill.cli", *command], check=True, stdout=sys.stderr)
    return ProjectFolder.find(folder).workspace(None)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, help="a project whose workspace has MovieLens and a registered model")
    parser.add_argument("--workspace", help="its workspace (default: the project's)")
    parser.add_argument("--model", help="model, or name:3 (default: the promoted one)")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    given, begun = parser.parse_args(), time.perf_counter()
    with TemporaryDirectory() as scratch:
        workspace = (
            quickstarted(Path(scratch) / "project")
            if given.project is None
            else ProjectFolder.find(given.project).workspace(given.workspace)
        )
        result = run(workspace, given.model)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    show(result)
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
