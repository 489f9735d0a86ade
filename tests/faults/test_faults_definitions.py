"""Mistakes in YAML and in feature_repo/, met by the commands that read them."""

import pytest

MISTAKES = {
    "malformed YAML": (
        "model_zoo/models/everycanvas/model.yaml",
        ("tasks:", "tasks: [oops"),
        r"model_zoo/models/everycanvas/model.yaml:\d+:\d+: YAML syntax",
    ),
    "unknown key": (
        "model_zoo/canvases/home.yaml",
        ("fallback:", "falback:"),
        r"canvases/home.yaml:\d+:\d+: falback.*Did you mean 'fallback'",
    ),
    "unknown label": (
        "model_zoo/models/everycanvas/model.yaml",
        ("label: thumbs_up,", "label: thumb_up,"),
        r"unknown label 'thumb_up'. Did you mean 'thumbs_up'",
    ),
    "unknown action": (
        "model_zoo/labels/thumbs_up.yaml",
        ("action: thumbs_up", "action: thumbs_upp"),
        r"labels/thumbs_up.yaml:\d+:\d+: .*Did you mean 'thumbs_up'",
    ),
    "unknown column": (
        "model_zoo/labels/discovery_play.yaml",
        ("progress >=", "progres >="),
        r"labels/discovery_play.yaml:\d+:\d+: .*Did you mean 'progress'",
    ),
    "unknown feature service": (
        "model_zoo/models/everycanvas/model.yaml",
        ("everycanvas_v3", "everycanvas_v33"),
        r"unknown feature service 'everycanvas_v33'. Did you mean 'everycanvas_v3'",
    ),
    "malformed Python": (
        "feature_repo/members.py",
        ("import", "impor"),
        r"feature_repo/members.py",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_shown_where_it_is_before_anything_is_read(project, name):
    path, change, message = MISTAKES[name]
    before = project.tree()
    project.edit(path, *change)
    for command in (["check"], ["train", "everycanvas"]):
        project.refused(*command, match=message)
    assert project.tree() == before


def test_malformed_feature_definitions_are_not_registered(project):
    project.edit("feature_repo/titles.py", "FeatureView(", "FeatureVeiw(")
    before = (project.home / "feast_registry.db").read_bytes()
    project.refused("apply", match="titles.py")
    assert (project.home / "feast_registry.db").read_bytes() == before


def test_an_unknown_feature_in_a_service_is_told_with_its_view_and_the_nearest(project):
    project.edit("feature_repo/services.py", '"log_plays_30d",', '"log_plays_30days",')
    before = (project.home / "feast_registry.db").read_bytes()
    project.refused("apply", match="services.py:.*View 'member_activity': did you mean 'log_plays_30d'")
    assert (project.home / "feast_registry.db").read_bytes() == before


def test_a_label_without_rows_is_named_and_leaves_no_run(project):
    (project.folder / "model_zoo" / "labels" / "my_list.yaml").write_text(
        "kind: Label\nname: my_list\nversion: 1\nfrom: {action: my_list_add}\n"
    )
    project.edit(project.model, "tasks:", "  my_list: {label: my_list, loss: softmax}\ntasks:")
    before = project.tree()
    message = "label my_list: the log has no 'my_list_add' event. Actions in it: play, thumbs_down"
    project.refused("train", "everycanvas", match=message)
    assert project.tree() == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "everycanva"], "unknown model 'everycanva'. Did you mean 'everycanvas'"),
        (["train", "everycanvas", "--protocol", "leave_one"], "unknown protocol.*Did you mean 'leave_one_out'"),
        (["ingest", "movielens_100"], "unknown source.*Did you mean 'movielens_100k'"),
        (["-w", "smal", "train", "everycanvas"], "workspace 'smal' has no data. Run `playbill -w smal ingest"),
    ],
)
def test_an_unknown_name_on_the_command_line_suggests_the_nearest(project, command, message):
    before = project.tree()
    project.refused(*command, match=message)
    assert project.tree() == before
    assert [path.name for path in (project.folder / ".playbill").iterdir() if path.is_dir()] == ["small"]
