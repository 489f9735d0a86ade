"""What `infra/` holds: files of the right shape, whose commands our tools and Ray and MLflow accept as they stand."""

import re
import shlex
import shutil
from pathlib import Path

import click
import compose_spec
import kubernetes_validate
import pytest
import yaml

from playbill.cli.main import Selection, main
from playbill.config import ProjectFolder, read_settings
from playbill.definitions.zoo import load_zoo

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVE = list(yaml.safe_load_all((INFRA / "kubernetes" / "serve.yaml").read_text()))
JOBS = {name: yaml.safe_load((INFRA / "kubernetes" / name).read_text()) for name in ("train.yaml", "train_gpu.yaml")}
SECRETS = {"PLAYBILL_DATABASE_PASSWORD", "PLAYBILL_REDIS_PASSWORD", "PLAYBILL_TOKEN", "RAY_AUTH_TOKEN"}


def playbill_accepts(words):
    """Parse a command line as far as click does before it would run."""
    context = main.make_context("playbill", list(words))
    context.obj = Selection(None, None)
    command, rest = main, [*context._protected_args, *context.args]
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
        rest = [*getattr(context, "_protected_args", []), *context.args]


def commands():
    for name, service in COMPOSE["services"].items():
        if "command" in service:
            yield name, service["command"]
    yield "serve.yaml", SERVE[0]["spec"]["template"]["spec"]["containers"][0]["command"]
    for name, job in JOBS.items():
        yield name, shlex.split(job["spec"]["entrypoint"])


def test_the_compose_file_is_valid():
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(COMPOSE))
    parsed.validate()
    assert set(COMPOSE["services"]) == {"postgres", "redis", "mlflow", "ray-head", "ray-worker", "server"}
    for name, service in COMPOSE["services"].items():
        assert "image" in service, name
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), f"{name} is open to the network"
        named = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert {volume for volume in named if not volume.startswith(".")} <= set(COMPOSE["volumes"]), name
        assert all((INFRA / volume).is_file() for volume in named if volume.startswith(".")), name
        for other in service.get("depends_on", {}):
            assert "healthcheck" in COMPOSE["services"][other], f"{name} waits for {other} to be healthy"


def test_the_manifest_of_the_server_fits_the_schema_of_kubernetes():
    for document in SERVE:
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    container = SERVE[0]["spec"]["template"]["spec"]["containers"][0]
    probes = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    app = (ROOT / "platform" / "playbill" / "serving" / "app.py").read_text()
    assert all(f'"{path}"' in app for path in probes.values())


@pytest.mark.parametrize("name", JOBS)
def test_the_pods_of_a_ray_job_fit_the_schema_of_kubernetes_too(name):
    """KubeRay's own resource has no schema in a package: its pods are checked, and what is ours in it."""
    job = JOBS[name]
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    ray = re.search(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    assert (job["apiVersion"], job["kind"], cluster["rayVersion"]) == ("ray.io/v1", "RayJob", ray)
    wanted = int(re.search(r"--workers (\d+)", job["spec"]["entrypoint"])[1])
    assert wanted == sum(group["replicas"] for group in cluster["workerGroupSpecs"])


def test_a_worker_on_a_card_has_it_in_its_pod_and_in_ray():
    cluster = JOBS["train_gpu.yaml"]["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == group["rayStartParams"]["num-gpus"] == "1"
    assert container["resources"]["requests"]["cpu"] == group["rayStartParams"]["num-cpus"]
    assert "--gpu" in JOBS["train_gpu.yaml"]["spec"]["entrypoint"].split()


def test_the_version_for_cards_that_the_recipe_gives_is_a_definition(tmp_path):
    recipe = re.search(r"```yaml\n(.*?)```", (INFRA / "README.md").read_text(), re.DOTALL)[1]
    zoo = shutil.copytree(ROOT / "model_zoo", tmp_path / "zoo")
    (zoo / "models" / "everycanvas_h100").mkdir()
    (zoo / "models" / "everycanvas_h100" / "model.yaml").write_text(recipe)
    model = load_zoo(zoo).model("everycanvas_h100").model
    assert (model.trunk.dim, model.training.batch_slots) == (256, 102_400)


def test_every_command_of_playbill_is_accepted():
    found = [(name, words[1:]) for name, words in commands() if words[0] == "playbill"]
    assert {name for name, _ in found} == {"server", "serve.yaml", *JOBS}
    for _, words in found:
        playbill_accepts(words)
    with pytest.raises(click.UsageError):
        playbill_accepts(["serve", "--hots", "0.0.0.0"])


def test_mlflow_answers_to_the_names_it_is_called_by():
    words = COMPOSE["services"]["mlflow"]["command"]
    hosts = next(word for word in words if word.startswith("--allowed-hosts=")).partition("=")[2].split(",")
    settings = read_settings(INFRA / "playbill.toml")
    assert settings.services.mlflow.removeprefix("http://") in hosts
    assert COMPOSE["services"]["mlflow"]["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_the_settings_of_containers_are_read_and_take_their_secrets_from_the_environment(monkeypatch):
    for name in SECRETS:
        monkeypatch.setenv(name, "s3cret")
    workspace = ProjectFolder(INFRA, read_settings(INFRA / "playbill.toml")).workspace()
    urls = (workspace.database_url, workspace.feast_registry_url, workspace.online_store_url, workspace.mlflow_uri)
    services = {re.split(r"[@/:]+", url.rpartition("@")[2].removeprefix("http://"))[0] for url in urls}
    assert services <= set(COMPOSE["services"])
    databases = (INFRA / "postgres" / "databases.sql").read_text()
    own = COMPOSE["services"]["postgres"]["environment"]["POSTGRES_DB"]
    for url in urls[:2]:
        name = url.rpartition("/")[2]
        assert name == own or f"CREATE DATABASE {name};" in databases
    texts = [path.read_text() for path in INFRA.rglob("*") if path.is_file() and path.suffix != ".sh"]
    assert not [text for text in texts if "s3cret" in text]
    used = set(re.findall(r"\$\{(\w+)", "".join(texts))) - {"TORCH_INDEX"}
    assert used == SECRETS


def test_the_image_installs_what_its_commands_need():
    text = (INFRA / "Containerfile").read_text()
    extras = re.search(r"'\.\[([\w,]+)\]'", text)[1].split(",")
    assert {"all", "cluster", "postgres"} == set(extras)
    for source in re.findall(r"^COPY (?!--from)(?:--chown=\w+ )?(.+)$", text, re.MULTILINE):
        for name in source.split()[:-1]:
            assert (ROOT / name).exists(), name
    assert "USER playbill" in text
