"""Messages are written in the words of the field: phrases that readers stumbled over do not come back."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "platform"

NOT_BUT = {
    r"its rules leave": "no candidates after filtering (rule `launched_within: 28d`)",
    r"no (title|row) may be shown": "no candidates after filtering",
    r"could have shown": "no held-out title among its candidates",
    r"\btold (after|at once|before|of|by)\b": "final after 8d; predicted from; trained on",
    r"no claims?\b(?! of)": "not significant (95 % interval includes 0)",
    r"makes no claim": "has no test of significance",
    r"\bspeaks of\b": "is about",
    r"\bcalls positive\b": "positive event of label",
    r"\basked at those\b": "measured at the requests of",
    r"\bwas (not )?asked\b": "was (not) queried",
    r"\btells? (apart|nothing)\b": "separates; learns from labelled events only",
    r"it blends .* alone": "it blends only 'x'",
    r"learning and telling": "fit and predict",
    r"what (anyone|anybody|nobody) ": "base rate; never populated",
    r"who lives off whom": "transfer between canvases",
    r"gladness": "satisfaction",
    r"should be a valid (tuple|dictionary|list)": "must be a list, such as [film]",
}
"""Pattern -> what to write instead (HOUSE words, STYLE "Plain words")."""


@cache
def messages() -> list[tuple[str, int, str]]:
    """Return every text of the package that is no docstring: file, line, text; `{}` stands for what is filled in."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                texts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
                found.append((name, node.lineno, "".join(map(str, texts))))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (prose | parts):
                found.append((name, node.lineno, node.value))
    return found


@pytest.mark.parametrize("phrase", NOT_BUT)
def test_phrases_that_were_given_up_do_not_come_back(phrase: str) -> None:
    found = [f"{file}:{line}: {text}" for file, line, text in messages() if re.search(phrase, text)]
    assert not found, f"write: {NOT_BUT[phrase]}\n" + "\n".join(found)


def test_the_search_for_phrases_finds_error_messages() -> None:
    texts = [text for _, _, text in messages()]
    assert len(texts) > 3000
    assert any("no candidates after filtering" in text for text in texts)
