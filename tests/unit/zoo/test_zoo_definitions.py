"""What a right zoo gives: versions, extends, rows in order, resolved models, the lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from playbill.definitions.zoo import load_zoo
from playbill.definitions.zoo.json_schema import kind_schema
from playbill.errors import DefinitionError, UnknownNameError

Edit = Callable[[str, str, str], None]
Write = Callable[[str, str], None]
Mistakes = Callable[..., list[str]]

HOME_2 = "kind: Canvas\nname: home\nversion: 2\nblend: {play: 2.0}\nmetric: play:1\n"
TUNED = "kind: Model\nname: tuned\nversion: 1\nextends: every\n"


def test_a_resolved_model_has_all_it_uses_in_plain_names(zoo_folder: Path, edit: Edit) -> None:
    edit("models/every.yaml", "label: up", "label: up:1")
    edit("models/every.yaml", "[home, search]", "[home:1, search]")
    edit("canvases/home.yaml", "rows: [top]", "rows: [top:1]")
    model = load_zoo(zoo_folder).model("every")
    assert model.model.canvases == ("home", "search")
    assert model.model.heads["up"].label == "up"
    assert model.labels.keys() == {"play", "up"}
    assert list(model.canvases) == ["home", "search"]
    assert [row.name for row in model.rows_of("home")] == ["top", "again"]
    assert model.model.rows == ("top", "again")
    with pytest.raises(UnknownNameError, match="Did you mean 'search'"):
        model.canvas("serch")


def test_the_files_do_not_matter_to_the_hash(zoo_folder: Path, edit: Edit) -> None:
    before = load_zoo(zoo_folder).model("every").spec_hash
    (zoo_folder / "labels" / "up.yaml").rename(zoo_folder / "up.yml")
    edit("canvases/home.yaml", "blend: {play: 1.0, up: 0.2}", "# A comment\nblend:\n  up: 0.2\n  play: 1")
    assert load_zoo(zoo_folder).model("every").spec_hash == before
    edit("canvases/home.yaml", "up: 0.2", "up: 0.3")
    assert load_zoo(zoo_folder).model("every").spec_hash != before


def test_a_plain_name_is_the_newest_version(zoo_folder: Path, write: Write, edit: Edit) -> None:
    write("canvases/home_2.yaml", HOME_2)
    zoo = load_zoo(zoo_folder)
    assert zoo.canvases["home"].version == 2
    assert zoo.find("Canvas", "home:1").version == 1
    assert zoo.model("every").canvases["home"].version == 2
    edit("models/every.yaml", "[home, search]", "[home:1, search]")
    assert load_zoo(zoo_folder).model("every").canvases["home"].version == 1


def test_unknown_names_are_refused_with_the_nearest(zoo_folder: Path) -> None:
    zoo = load_zoo(zoo_folder)
    with pytest.raises(UnknownNameError, match="Did you mean 'every'"):
        zoo.model("evry")
    with pytest.raises(UnknownNameError, match="every:1"):
        zoo.model("every:7")


def test_a_model_may_name_its_rows(zoo_folder: Path, edit: Edit, mistakes: Mistakes) -> None:
    edit("models/every.yaml", "canvases: [home, search]", "canvases: [home, search]\nrows: [again]")
    assert list(load_zoo(zoo_folder).model("every").rows) == ["again"]
    edit("models/every.yaml", "rows: [again]", "rows: [agan]")
    assert "unknown row 'agan'. Did you mean 'again'?" in mistakes()[0]


def test_a_row_scored_as_a_canvas_needs_a_model_with_it(edit: Edit, mistakes: Mistakes) -> None:
    edit("rows/top.yaml", "canvas: home", "canvas: home\nscored_as: search")
    assert mistakes() == []
    edit("models/every.yaml", "[home, search]", "[home]")
    edit("models/every.yaml", "tasks:\n  search: {from: title_names}\n", "")
    assert "model 'every' shows this row but has no canvas 'search'" in mistakes()[0]


def test_extends_merges_deeply_and_null_takes_away(zoo_folder: Path, write: Write) -> None:
    tuned = "trunk: {dim: 32}\nheads:\n  up: null\n  play: {weight: 2}\ncanvases: [search]\ngates: null\n"
    write("models/tuned.yaml", TUNED + tuned)
    model = load_zoo(zoo_folder).models["tuned"]
    assert model.trunk.dim == 32
    assert model.heads.keys() == {"play"}
    assert model.heads["play"].weight == 2
    assert model.heads["play"].loss == "softmax"
    assert model.canvases == ("search",)
    assert model.gates == ()
    assert model.version == 1
    assert model.features == "every_v1"


def test_extends_may_go_on_and_name_a_version(zoo_folder: Path, write: Write) -> None:
    write("models/tuned.yaml", TUNED.replace("extends: every", "extends: every:1") + "trunk: {dim: 32, layers: 3}\n")
    write("models/finer.yaml", "kind: Model\nname: finer\nversion: 4\nextends: tuned\ntrunk: {dim: 16}\n")
    trunk = load_zoo(zoo_folder).models["finer"].trunk
    assert (trunk.dim, trunk.layers) == (16, 3)


def test_a_circle_of_extends_is_reported_once_for_each_of_it(write: Write, mistakes: Mistakes) -> None:
    write("models/a.yaml", "kind: Model\nname: a\nversion: 1\nextends: b\n")
    write("models/b.yaml", "kind: Model\nname: b\nversion: 1\nextends: a\n")
    found = mistakes()
    assert len(found) == 2
    assert "models/a.yaml:4:10: extends: goes round in a circle: Model a:1 -> Model b:1 -> Model a:1." in found[0]


def test_extending_itself_or_an_unknown_parent_is_a_mistake(write: Write, mistakes: Mistakes) -> None:
    write("models/a.yaml", "kind: Model\nname: a\nversion: 1\nextends: a\n")
    assert "goes round in a circle" in mistakes()[0]
    write("models/a.yaml", "kind: Model\nname: a\nversion: 1\nextends: evry\n")
    assert "unknown model 'evry'. Did you mean 'every'?" in mistakes()[0]
    write("models/a.yaml", "kind: Model\nname: a\nversion: 1\nextends: [every]\n")
    assert "extends" in mistakes()[0]


def test_a_mistake_in_what_is_extended_is_found_where_it_is(write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("models/tuned.yaml", TUNED)
    edit("models/every.yaml", "loss: bce", "loss: bcee")
    assert mistakes() == ["model_zoo/models/every.yaml:8:25: heads.up.loss: unknown loss 'bcee'. Did you mean 'bce'?"]


def test_the_other_kinds_are_read(zoo_folder: Path, write: Write, mistakes: Mistakes) -> None:
    write("rewards/r.yaml", "kind: Reward\nname: r\nversion: 1\nterms: {play: 0.6, up: -0.5}\n")
    ensemble = "members: {global: every@champion, other: every:1}\ngate: [country, tenure]\n"
    write("ensembles/e.yaml", "kind: Ensemble\nname: e\nversion: 1\n" + ensemble)
    zoo = load_zoo(zoo_folder)
    assert {name: term.weight for name, term in zoo.rewards["r"].terms.items()} == {"play": 0.6, "up": -0.5}
    assert zoo.ensembles["e"].gate == ("country", "tenure")
    assert zoo.notes == ()
    write("rewards/r.yaml", "kind: Reward\nname: r\nversion: 1\nterms: {plai: 0.6}\n")
    write("ensembles/e.yaml", "kind: Ensemble\nname: e\nversion: 1\n" + ensemble.replace("every:1", "evry"))
    found = mistakes()
    assert "ensembles/e.yaml:4:42: members.other: unknown model 'evry'" in found[0]
    assert "rewards/r.yaml:4:9: terms.plai: unknown label 'plai'" in found[1]


def test_a_bce_head_without_zeros_is_noted(zoo_folder: Path, edit: Edit) -> None:
    assert load_zoo(zoo_folder).notes == ()
    edit("models/every.yaml", "{label: play, loss: softmax}", "{label: play, loss: bce}")
    (note,) = load_zoo(zoo_folder).notes
    assert "models/every.yaml:7:9: heads.play: label 'play' has no negatives" in str(note)


def test_a_published_version_may_not_change(zoo_folder: Path, edit: Edit, mistakes: Mistakes) -> None:
    published = load_zoo(zoo_folder).publish()
    assert "Canvas home:1" in published
    assert load_zoo(zoo_folder).publish() == []
    edit("canvases/home.yaml", "version: 1", "version: 1   # looks only")
    edit("canvases/home.yaml", "metric: play", "metric: play\nfallback: popular_7d")
    assert mistakes() == []
    edit("canvases/home.yaml", "up: 0.2", "up: 0.3")
    (found,) = mistakes()
    assert "canvases/home.yaml:3:1: version: Canvas home:1 is published and its content has changed" in found
    assert "or give it version 2" in found
    edit("canvases/home.yaml", "version: 1", "version: 2")
    assert mistakes() == []
    assert load_zoo(zoo_folder).publish() == ["Canvas home:2"]
    lock = (zoo_folder / "zoo.lock").read_text()
    assert "Canvas home:1 sha256:" in lock
    edit("canvases/home.yaml", "version: 2", "version: 1")
    assert "is published" in mistakes()[0]


PUBLISHED_BEFORE = "d17c7acbcc67ce1696b44381d7809b20c762870ef3aedbb818675f34fbfdaf51"


def test_a_protocol_that_was_published_stands_and_another_one_is_noticed(
    zoo_folder: Path, edit: Edit, mistakes: Mistakes
) -> None:
    edit("models/every.yaml", "gates:", "evaluate: {protocol: leave_one_out}\ngates:")
    load_zoo(zoo_folder).publish()
    # Hash of the same content when leave_one_out was the default, and locks left it out.
    assert f"Model every:1 sha256:{PUBLISHED_BEFORE}" in (zoo_folder / "zoo.lock").read_text()
    edit("models/every.yaml", "protocol: leave_one_out", "slices: [country, tenure, title_age]")
    assert "Model every:1 is published and its content has changed" in mistakes()[0]
    edit("models/every.yaml", "evaluate: {slices: [country, tenure, title_age]}\n", "")
    assert "Model every:1 is published and its content has changed" in mistakes()[0]


def test_what_is_extended_counts_as_content(zoo_folder: Path, write: Write, edit: Edit, mistakes: Mistakes) -> None:
    write("models/tuned.yaml", TUNED)
    load_zoo(zoo_folder).publish()
    edit("models/every.yaml", "weight: 0.3", "weight: 0.4")
    assert len(mistakes()) == 2


def test_a_sources_own_canvas_is_published_like_any_other(zoo_folder: Path, write: Write, mistakes: Mistakes) -> None:
    write("canvases/tab.yaml", (zoo_folder / "canvases/search.yaml").read_text().replace("search", "kuairand.tab_1"))
    assert "Canvas kuairand.tab_1:1" in load_zoo(zoo_folder).publish()
    assert mistakes() == []


def test_a_broken_lock_is_a_mistake(zoo_folder: Path, mistakes: Mistakes) -> None:
    (zoo_folder / "zoo.lock").write_text("# fine\nCanvas home\n")
    assert mistakes() == ["model_zoo/zoo.lock:2:1: is no line of a lock. Expected 'Canvas home:1 sha256:...'."]


def test_a_zoo_with_mistakes_is_never_half_loaded(zoo_folder: Path, edit: Edit) -> None:
    edit("labels/up.yaml", "action: thumbs_up", "action: thumb_up")
    with pytest.raises(DefinitionError):
        load_zoo(zoo_folder)


def test_the_json_schema_offers_the_names_of_each_registry_and_takes_their_options() -> None:
    parts = kind_schema("Model")["$defs"]
    assert "mixed" in parts["NegativesOptions"]["properties"]["policy"]["enum"]
    assert {"mmoe", "ple"} <= set(parts["SharingOptions"]["properties"]["type"]["enum"])
    assert "row_position" in kind_schema("Canvas")["properties"]["context"]["items"]["enum"]
    assert "gradnorm" in parts["BalanceOptions"]["properties"]["type"]["enum"]
    assert all(parts[name]["additionalProperties"] for name in ("NegativesOptions", "SharingOptions"))
    assert parts["HeadSpec"]["additionalProperties"] is False
