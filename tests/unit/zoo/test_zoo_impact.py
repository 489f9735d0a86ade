"""What depends on what in the zoo and feature_repo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from playbill.definitions.specs import ResolvedModel, prune_heads
from playbill.definitions.zoo import load_zoo
from playbill.definitions.zoo.feature_definitions import read_feature_repo
from playbill.definitions.zoo.impact import KINDS, Graph, ImpactNode, graph_of
from playbill.definitions.zoo.versions import VersionRecord, add_version, parts_of
from playbill.errors import UnknownNameError

ROOT = Path(__file__).parents[3]
REPO = {
    "base.py": """\
from feast import FeatureView, Field, FileSource, PushSource, RequestSource
request = RequestSource(name="request", schema=[Field(name="at")])
FILE = "profiles"
profile = FeatureView(
    name="profile",
    schema=[Field(name="age"), Field(name="country")],
    source=PushSource(name="profile_push", batch_source=FileSource(name=FILE, path="profiles.parquet")),
    description="Who they are.",
)
""",
    "made.py": """\
import pandas as pd
from base import profile, request
from feast import LabelView
from feast.on_demand_feature_view import on_demand_feature_view

def halves(values):
    return values / 2

@on_demand_feature_view(sources=[profile[["age"]], request], schema=[Field(name="half")])
def half_age(inputs):
    \"\"\"Half of it.\"\"\"
    return pd.DataFrame({"half": halves(inputs["age"])})

label_play = LabelView(name="label_play", **values("play"))
""",
    "services.py": """\
from base import profile
from feast import FeatureService
from made import half_age
every = FeatureService(name="every_v1", features=[profile[["country"]], half_age])
""",
}


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "feature_repo"
    folder.mkdir()
    for name, text in REPO.items():
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def zoo(zoo_folder, write):
    write("rewards/worth.yaml", "kind: Reward\nname: worth\nversion: 1\nterms: {play: 1.0, up: 0.5}\n")
    write(
        "rows/like.yaml",
        "kind: Row\nname: like\nversion: 1\ntitle: {en: Like}\ncanvas: home\nscored_as: search\nblend: {up: 1.0}\n",
    )
    write(
        "ensembles/all.yaml",
        "kind: Ensemble\nname: all\nversion: 1\nmembers: {global: every, other: every@champion}\ngate: [country]\n",
    )
    model = (zoo_folder / "models/every.yaml").read_text()
    write("models/every.yaml", model.replace("loss: softmax", "loss: softmax, reward: worth"))
    return load_zoo(zoo_folder)


@pytest.fixture
def graph(zoo, repo):
    return graph_of(zoo, read_feature_repo(repo))


def names(found):
    return [str(one.node) for one in found]


def dependents(graph, requested):
    return names(graph.dependents(graph.find(requested)))


def test_a_label_reaches_all_that_learns_counts_or_is_judged_by_it(graph):
    found = {one.node: one.path for one in graph.dependents(graph.find("label:up"))}
    assert [str(node) for node in found] == [
        "reward:worth:1",
        "head:every.play:1",
        "head:every.up:1",
        "canvas:home:1",
        "canvas:search:1",
        "row:like:1",
        "row:top:1",
        "page:home:1",
        "model:every:1",
        "ensemble:all:1",
    ]
    way = found[ImpactNode("row", "like", 1)]
    assert [(str(edge.what), edge.why) for edge in way] == [
        ("head:every.up:1", "learns it"),
        ("row:like:1", "blends it with weight 1"),
    ]


@pytest.mark.parametrize(
    ("requested", "reached"),
    [
        ("source:profiles", {"source:profile_push", "feature_view:half_age", "head:every.play:1", "model:every:1"}),
        ("source:request", {"feature_view:half_age", "feature_service:every_v1", "ensemble:all:1"}),
        ("feature_view:profile", {"feature:profile.age", "feature:half_age.half", "feature_service:every_v1"}),
        ("feature:profile.country", {"feature_service:every_v1", "canvas:search:1"}),
        ("feature_service:every_v1", {"head:every.up:1", "row:top:1"}),
        ("reward:worth", {"head:every.play:1", "row:top:1", "model:every:1"}),
        ("policy:popular", {"row:again:1", "page:home:1", "model:every:1"}),
        ("head:every.play", {"canvas:search:1", "row:top:1", "model:every:1"}),
        ("canvas:search", {"row:like:1", "model:every:1", "ensemble:all:1"}),
        ("row:again", {"page:home:1", "model:every:1"}),
        ("page:home", {"model:every:1"}),
        ("model:every", {"ensemble:all:1"}),
    ],
)
def test_every_kind_has_dependents(graph, requested, reached):
    assert reached <= set(dependents(graph, requested))


def test_a_model_depends_on_no_view_that_only_another_model_reads(zoo_folder, write, repo):
    """Both serve the canvas home and its row; what that blends are the heads of each, with features of each."""
    model = (zoo_folder / "models/every.yaml").read_text()
    write("models/other.yaml", model.replace("name: every", "name: other").replace("every_v1", "other_v1"))
    (repo / "other.py").write_text(
        "from feast import FeatureService, FeatureView, Field, FileSource\n"
        'own = FeatureView(name="own", schema=[Field(name="x")], source=FileSource(name="own", path="own.parquet"))\n'
        'other = FeatureService(name="other_v1", features=[own])\n'
    )
    graph = graph_of(load_zoo(zoo_folder), read_feature_repo(repo))
    found = dependents(graph, "feature_view:own")
    assert {"head:other.play:1", "row:top:1", "canvas:home:1", "model:other:1"} <= set(found)
    assert "model:every:1" not in found
    assert not [name for name in found if name.startswith("head:every")]
    below = names(graph.dependencies(graph.find("model:every")))
    assert {"head:every.play:1", "row:top:1", "feature_view:profile"} <= set(below)
    assert not {"head:other.play:1", "feature_service:other_v1", "feature_view:own"} & set(below)
    assert "model:every:1" in dependents(graph, "feature_view:profile")


def test_a_row_depends_on_its_canvas_but_not_on_what_the_canvas_blends(graph):
    assert "row:again:1" in dependents(graph, "canvas:home")
    assert "row:again:1" not in dependents(graph, "head:every.play")
    assert "row:again:1" not in dependents(graph, "label:play")
    assert dependents(graph, "feature:profile.age") == [], "the service takes only the country of it"


def test_the_reverse_goes_as_far(graph):
    below = names(graph.dependencies(graph.find("ensemble:all")))
    assert {"model:every:1", "label:up:1", "source:profiles", "feature:profile.country", "policy:popular"} <= set(below)
    assert "feature:profile.age" not in below


def test_a_way_that_goes_on_is_not_hidden_by_a_shorter_one_that_ends():
    graph = Graph()
    low, canvas, row, page = (ImpactNode(kind, kind) for kind in ("label", "canvas", "row", "page"))
    graph.depends(page, canvas, "is its page", ends=True)
    graph.depends(page, row, "shows it")
    graph.depends(row, canvas, "needs it")
    graph.depends(canvas, low, "is judged by it")
    assert {one.node for one in graph.dependencies([page])} == {low, canvas, row}


def test_unknown_things_are_named_with_the_nearest(graph):
    for requested, match in [
        ("label:plai", "unknown label 'plai'. Did you mean 'play'"),
        ("canvas:home:7", "unknown canvas 'home:7'. Did you mean 'home:1'"),
        ("lable:play", "unknown kind of thing 'lable'. Did you mean 'label'"),
        ("profil", "Did you mean 'profile'"),
        ("head:every.plya", "Did you mean 'every.play'"),
    ]:
        with pytest.raises(UnknownNameError, match=match):
            graph.find(requested)
    assert [node.kind for node in graph.find("play")] == ["label"]
    assert graph.find("label:play") == graph.find("label:play:1")


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)), max_size=40))
def test_edges_upwards_are_refused_so_the_graph_has_no_circle(pairs):
    graph = Graph()
    for what, on in pairs:
        try:
            graph.depends(ImpactNode(what, "a"), ImpactNode(on, "b" if what == on else "a"), "x")
        except ValueError:
            assert KINDS.index(on) > KINDS.index(what)
    for node in graph.nodes:
        assert node not in {one.node for one in graph.dependencies([node])}


def test_the_shipped_zoo_has_no_circle_and_names_that_exist():
    zoo, features = load_zoo(ROOT / "model_zoo"), read_feature_repo(ROOT / "feature_repo")
    graph = graph_of(zoo, features)
    for node in graph.nodes:
        assert node not in {one.node for one in graph.dependencies([node])}, f"{node} depends on itself"
    views = {name for kind, name in features.definitions if kind == "feature_view"}
    assert {node.name for node in graph.nodes if node.kind == "feature_view"} == views
    columns = {node.name for node in graph.nodes if node.kind == "feature"}
    read = {edge.on.name for edge in graph.edges if edge.on.kind == "feature"}
    assert read <= columns
    assert str(graph.find("model:everycanvas")[-1]) in dependents(graph, "feature_view:title_profile")


def test_hashes_are_of_what_is_said_and_of_helpers(repo):
    def hashes():
        return read_feature_repo(repo).service_hashes("every_v1")

    def edit(name, old, new):
        text = (repo / name).read_text()
        assert old in text
        (repo / name).write_text(text.replace(old, new))

    first = hashes()
    assert sorted(first) == ["half_age", "profile"]
    edit("base.py", "Who they are.", "Whoever they are.")
    edit("base.py", "    schema=[", "    # a comment\n    schema=[")
    edit("made.py", "Half of it.", "One half.")
    assert hashes() == first
    edit("made.py", "values / 2", "values * 0.5")
    assert {name for name, content in hashes().items() if content != first[name]} == {"half_age"}
    edit("base.py", 'FILE = "profiles"', 'FILE = "profiles_2"')
    assert {name for name, content in hashes().items() if content != first[name]} == {"half_age", "profile"}


@pytest.fixture
def record(zoo, repo):
    resolved = ResolvedModel.from_json(zoo.model("every").to_json())
    hashes = read_feature_repo(repo).service_hashes("every_v1")
    return VersionRecord("every", 3, resolved, "every_v1", "s1", ("half_age__half", "profile__country"), hashes)


def test_a_version_depends_on_its_record_not_on_definitions_of_today(graph, record):
    add_version(graph, record)
    below = set(names(graph.dependencies(graph.find("version:every:3"))))
    assert {"label:up:1", "reward:worth:1", "row:like:1", "policy:popular", "feature:half_age.half"} <= below
    assert {"feature_view:profile", "source:profiles", "source:request"} <= below
    assert "feature:profile.age" not in below
    assert "version:every:3" in dependents(graph, "source:profiles")
    assert "version:every:3" in dependents(graph, "head:every.up")
    later = ImpactNode("label", "later", 1)
    graph.depends(ImpactNode("head", "every.up", 1), later, "learns it")
    assert "model:every:1" in names(graph.dependents([later]))
    assert "version:every:3" not in names(graph.dependents([later]))


def test_a_version_does_not_depend_on_a_label_that_it_never_learnt(graph, record):
    """The bundle of a log without thumbs: `up` was left out, though older bundles go on naming its label."""
    left = prune_heads(record.resolved, {"up": "no row"})
    kept = left.model_copy(update={"labels": record.resolved.labels, "rewards": {}})
    add_version(graph, replace(record, resolved=kept))
    assert "version:every:3" not in dependents(graph, "label:up")
    assert "version:every:3" in dependents(graph, "label:play")


def test_changes_since_registration_are_reported_part_by_part(zoo_folder, write, edit, record, repo):
    def moved(service_version="s1"):
        found = parts_of(record, load_zoo(zoo_folder), read_feature_repo(repo), service_version)
        return {str(part.node): (part.now, part.detail) for part in found if part.now != "same"}

    assert moved() == {}
    edit("canvases/home.yaml", "up: 0.2", "up: 0.4")
    edit("labels/up.yaml", "version: 1", "version: 2")
    (repo / "services.py").write_text(REPO["services.py"].replace(", half_age]", "]"))
    (repo / "base.py").write_text(REPO["base.py"].replace('Field(name="age")', 'Field(name="years")'))
    assert moved("s2") == {
        "canvas:home:1": ("changed", "blend differ"),
        "label:up:1": ("newer", "the zoo has version 2"),
        "feature_service:every_v1": ("changed", "its content is s2 now"),
        "feature_view:half_age": ("gone", "the service has it no more"),
        "feature_view:profile": (
            "changed",
            f"its content is {read_feature_repo(repo).service_hashes('every_v1')['profile']} now",
        ),
    }
    (zoo_folder / "rows/again.yaml").unlink()
    assert moved()["row:again:1"] == ("gone", "the zoo has no row 'again' any more")
    assert moved(None)["feature_service:every_v1"] == ("unknown", "Feast was not queried")
