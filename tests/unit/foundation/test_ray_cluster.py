"""Which Ray cluster is used: one setting for the project, else RAY_ADDRESS. No Ray is imported for it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from playbill.config import ProjectFolder, ProjectSettings, ServicesSettings, TrainingSettings, read_settings
from playbill.errors import ConfigError
from playbill.ray_cluster import cluster_address
from playbill.training.options import TrainOptions, check_workers


@pytest.fixture
def no_address(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def test_the_setting_comes_before_the_environment(monkeypatch, no_address):
    assert cluster_address(None) is None
    assert cluster_address("10.0.0.1:6379") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert cluster_address(None) == "head:6379"
    assert cluster_address("auto") == "auto"
    assert cluster_address("local") is None


@pytest.mark.parametrize("by_environment", [True, False])
def test_ray_client_is_answered_with_ray_jobs(monkeypatch, no_address, by_environment):
    if by_environment:
        monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match=r"ray job submit --address http://head:8265 -- playbill train"):
        cluster_address(None if by_environment else "ray://head:10001")


def test_an_address_may_come_from_a_variable(monkeypatch, tmp_path):
    monkeypatch.setenv("HEAD", "10.0.0.7")
    services = ServicesSettings(ray_address="${HEAD}:6379")
    training = TrainingSettings(storage="s3://${HEAD}/runs")
    workspace = ProjectFolder(tmp_path, ProjectSettings(services=services, training=training)).workspace("one")
    assert workspace.ray_address == "10.0.0.7:6379"
    assert workspace.training_storage == "s3://10.0.0.7/runs"
    folder = ProjectSettings(training=TrainingSettings(storage="shared"))
    assert ProjectFolder(tmp_path, folder).workspace("one").training_storage == str(tmp_path / "shared")


@pytest.mark.parametrize("options", [TrainOptions(sharded=True), TrainOptions(workers=1, sharded=True)])
def test_a_network_is_not_shared_out_among_fewer_than_two_workers(tmp_path, options):
    workspace = ProjectFolder(tmp_path, ProjectSettings()).workspace("one")
    with pytest.raises(ConfigError, match=r"pass --workers 2, set training\.workers .* or pass --no-sharded"):
        check_workers(workspace, options)
    check_workers(workspace, replace(options, workers=2))
    shared = ProjectSettings(training=TrainingSettings(workers=2, sharded=True))
    check_workers(ProjectFolder(tmp_path, shared).workspace("one"), TrainOptions())
    with pytest.raises(ConfigError, match="this run has 0"):
        check_workers(ProjectFolder(tmp_path, shared).workspace("one"), TrainOptions(workers=0))


def test_addresses_of_earlier_releases_are_pointed_to_the_one_setting(tmp_path):
    toml = tmp_path / "playbill.toml"
    toml.write_text('[training]\nray_address = "auto"\n[features.ray]\naddress = "auto"\n')
    with pytest.raises(ConfigError) as refused:
        read_settings(toml)
    assert str(refused.value).count("is now services.ray_address") == 2


def test_an_address_is_checked_without_ray():
    code = "import sys, playbill.ray_cluster; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
