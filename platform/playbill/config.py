"""Projects and workspaces: `playbill.toml`, its folders and services.

Infrastructure lives here and never in the zoo. Secrets come from the environment: `${NAME}` in a value is
replaced, and a missing variable is an error. Relative folders and SQLite files resolve against the project.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from playbill.clock import ClockSetting, parse_clock
from playbill.errors import ConfigError, did_you_mean
from playbill.files import make_folder
from playbill.settings import LimitsSettings, ServingSettings, Settings

FILE_NAME = "playbill.toml"
TEMPLATES = Path(__file__).parent / "templates"
"""`model_zoo/` and `feature_repo/` as shipped in the wheel; a checkout uses its own instead."""
CHECKOUT = Path(__file__).parents[2]

_SQLITE = "sqlite:///"
_REDIS = ("redis://", "rediss://")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WORKSPACE_NAME = re.compile(r"[a-z][a-z0-9_]*")


class ServicesSettings(Settings):
    """`[services]`: where databases, artifacts and the cluster are. `{home}` and `{workspace}` are filled in."""

    database: str = "sqlite:///{home}/{workspace}/playbill.db"
    """Event journal, request log, audit table: any SQLAlchemy URL."""
    feast_registry: str = "sqlite:///{home}/{workspace}/feast_registry.db"
    """Feast's SQL registry."""
    online_store: Annotated[str, AfterValidator(lambda text: _known_online_store(text))] = (
        "{home}/{workspace}/online_store.db"
    )
    """Where features are served from: path of an SQLite file, or `redis://host:port/0` (`rediss://` over TLS)."""
    mlflow: str = "sqlite:///{home}/mlflow.db"
    """MLflow tracking and registry: a database URL or an http(s) server."""
    artifacts: str = "{home}/mlflow_artifacts"
    """Where MLflow keeps artifacts when it is a plain database."""
    ray_address: str | None = None
    """The Ray cluster: `host:port`, `auto` or `local`. None = that of RAY_ADDRESS, else one started on this machine."""


class FeaturesRaySettings(Settings):
    """`[features.ray]`: how the cluster joins training rows. What is left out is the Ray engine's own default."""

    workers: PositiveInt | None = None
    """Partitions that are joined at once."""
    cpus_per_worker: PositiveFloat | None = None
    """CPUs that each of them takes."""
    partitions: PositiveInt | None = None
    """Parts that the entity keys are cut into; more parts need less memory each."""
    start_timeout_s: PositiveFloat | None = None
    """How long to wait for the cluster before giving up."""


class FeaturesSettings(Settings):
    """`[features]`: how feature values of past moments are looked up."""

    engine: Literal["local", "ray"] = "local"
    """`local` joins in this process; `ray` by entity key on a cluster, for logs that outgrow a machine."""
    ray: FeaturesRaySettings = FeaturesRaySettings()
    storage_options: dict[str, str] = Field(default_factory=dict)
    """Options of the object store that sources with a URL (`s3://...`) are on, such as its endpoint."""


class TrainingSettings(Settings):
    """`[training]`: how much machine a run may use."""

    workers: NonNegativeInt = 0
    """0 trains in this process without Ray; N is a Ray TorchTrainer of N workers."""
    sharded: bool = False
    """Whether each worker holds a part of the tables of titles and of the trunk (FSDP) instead of all (DDP)."""
    gpu: bool | None = None
    """None uses a GPU when there is one."""
    threads: NonNegativeInt = 0
    """torch threads per worker, 0 = torch's own choice."""
    events_in_memory: PositiveInt = 2_000_000
    """Events of a log that its training set is built of at a time, some 2 KB each; a longer log is taken in parts."""
    storage: str | None = None
    """Folder or URL (`s3://bucket/path`) of the files of runs with workers, reached by every node. None = the run's."""


class WorkspaceSettings(Settings):
    """`[workspaces.NAME]`: one service's data."""

    clock: Annotated[str, AfterValidator(lambda text: (parse_clock(text), text)[1])] = "data_end"
    """`wall`, `data_end`, or a fixed ISO moment with a zone."""
    model: str = "everycanvas"
    """Model that is served and asked when `--model` is not given. The zoo's only model needs no saying."""


class ProjectSettings(Settings):
    """playbill.toml as a whole."""

    home: str = ".playbill"
    """Folder of all workspaces, relative to the project."""
    workspace: str = "ml_100k"
    """Workspace used when `-w` is not given."""
    model_zoo: str = "model_zoo"
    feature_repo: str = "feature_repo"
    workspaces: dict[str, WorkspaceSettings] = Field(default_factory=dict)
    services: ServicesSettings = ServicesSettings()
    features: FeaturesSettings = FeaturesSettings()
    training: TrainingSettings = TrainingSettings()
    serving: ServingSettings = ServingSettings()


@dataclass(frozen=True)
class ProjectFolder:
    """A folder with a playbill.toml, or the defaults where there is none."""

    root: Path
    settings: ProjectSettings

    @classmethod
    def find(cls, start: Path | None = None) -> ProjectFolder:
        """Load the project whose playbill.toml is in `start` or the nearest folder above it.

        Without one, the defaults apply with `start` as the project's folder.

        Raises:
            ConfigError: `start` does not exist, or playbill.toml has mistakes (all are named).
        """
        folder = (start or Path.cwd()).resolve()
        if not folder.is_dir():
            raise ConfigError(f"project folder {folder} does not exist")
        for candidate in (folder, *folder.parents):
            if (candidate / FILE_NAME).is_file():
                return cls(candidate, read_settings(candidate / FILE_NAME))
        return cls(folder, ProjectSettings())

    @property
    def home(self) -> Path:
        """Folder of all workspaces, absolute."""
        return (self.root / self.settings.home).resolve()

    @property
    def model_zoo(self) -> Path:
        """The project's model_zoo/, else the one shipped with Playbill."""
        return self._folder(self.settings.model_zoo, "model_zoo")

    @property
    def feature_repo(self) -> Path:
        """The project's feature_repo/, else the one shipped with Playbill."""
        return self._folder(self.settings.feature_repo, "feature_repo")

    def _folder(self, configured: str, shipped: str) -> Path:
        own = (self.root / configured).resolve()
        return own if own.is_dir() else shipped_folder(shipped)

    def workspace(self, name: str | None = None) -> Workspace:
        """Return a workspace by name, or the default one. Its folder need not exist yet.

        Raises:
            ConfigError: The name is no workspace name.
        """
        chosen = name or self.settings.workspace
        if not _WORKSPACE_NAME.fullmatch(chosen):
            raise ConfigError(
                f"'{chosen}' is no workspace name, use lower-case letters, digits and '_', starting with a letter"
            )
        return Workspace(self, chosen, self.settings.workspaces.get(chosen, WorkspaceSettings()))

    def workspace_names(self) -> tuple[str, ...]:
        """Return the names of all workspaces that are configured or have a folder."""
        folders = self.home.iterdir() if self.home.is_dir() else ()
        on_disk = {folder.name for folder in folders if (folder / "tables").is_dir()}
        return tuple(sorted(on_disk | self.settings.workspaces.keys()))


@dataclass(frozen=True)
class Workspace:
    """One service's data: its folder, database and clock, side by side with others."""

    project: ProjectFolder
    name: str
    settings: WorkspaceSettings

    @property
    def folder(self) -> Path:
        """HOME/NAME, absolute."""
        return self.project.home / self.name

    @property
    def tables(self) -> Path:
        """Folder of the canonical tables."""
        return self.folder / "tables"

    @property
    def vocabularies(self) -> Path:
        """Folder of the vocabularies."""
        return self.folder / "vocabularies"

    @property
    def features(self) -> Path:
        """Folder of the offline feature files."""
        return self.folder / "features"

    @property
    def runs(self) -> Path:
        """Folder of training runs and their checkpoints."""
        return self.folder / "runs"

    @property
    def serving(self) -> Path:
        """Folder where downloaded model versions are kept."""
        return self.folder / "serving"

    @property
    def dead_letters(self) -> Path:
        """Requests that the request log could not take, one JSON object a line with the reason."""
        return self.folder / "dead_letters" / "requests.jsonl"

    @property
    def feature_store_yaml(self) -> Path:
        """The rendered Feast configuration, with absolute paths."""
        return self.folder / "feature_store.yaml"

    @cached_property
    def clock_setting(self) -> ClockSetting:
        """The parsed clock. `tables.workspace_clock` turns it into a Clock."""
        return parse_clock(self.settings.clock)

    @property
    def database_url(self) -> str:
        """Journal, request log, approvals and audit."""
        return self.service_url(self.project.settings.services.database)

    @property
    def feast_registry_url(self) -> str:
        """Feast's SQL registry."""
        return self.service_url(self.project.settings.services.feast_registry)

    @property
    def online_store_url(self) -> str:
        """Where features are served from, secrets filled in: a `redis://` URL, or an SQLite file's absolute path.

        Raises:
            ConfigError: A variable of the setting is missing or makes it something else.
        """
        try:
            text = _known_online_store(self._expand(self.project.settings.services.online_store))
        except ValueError as error:
            raise ConfigError(f"services.online_store in {FILE_NAME}: {error}") from None
        return text if text.startswith(_REDIS) else str((self.project.root / text.removeprefix(_SQLITE)).resolve())

    @property
    def online_store_path(self) -> Path | None:
        """The SQLite file that features are served from, absolute. None where Redis serves them."""
        url = self.online_store_url
        return None if url.startswith(_REDIS) else Path(url)

    @property
    def online_store(self) -> str:
        """Where features are served from, to be shown: the file's path, or the Redis URL without its password."""
        if self.online_store_path is not None:
            return self.online_store_url
        url = urlsplit(self.online_store_url)
        return f"{url.scheme}://{url.hostname}:{url.port or 6379}{url.path}"

    @property
    def mlflow_uri(self) -> str:
        """MLflow tracking and registry."""
        return self.service_url(self.project.settings.services.mlflow)

    @property
    def artifacts(self) -> str:
        """MLflow artifact root, an absolute folder or a URL."""
        return self._place(self._expand(self.project.settings.services.artifacts))

    def _place(self, text: str) -> str:
        return text if "://" in text else str((self.project.root / text).resolve())

    @property
    def ray_address(self) -> str | None:
        """Configured address of the Ray cluster; `ray_cluster.cluster_address` makes of it the one to use."""
        return self._expand(self.project.settings.services.ray_address or "") or None

    @property
    def training_storage(self) -> str | None:
        """Folder or URL for the files of runs with several workers; None = the run's own folder."""
        configured = self._expand(self.project.settings.training.storage or "")
        return self._place(configured) if configured else None

    def registered_name(self, model: str) -> str:
        """Return the registered model's name in MLflow, `WORKSPACE.model`."""
        return f"{self.name}.{model}"

    def service_url(self, template: str) -> str:
        """Fill in a service's URL; a relative SQLite file becomes absolute and its folder is made."""
        url = self._expand(template)
        if not url.startswith(_SQLITE) or url == _SQLITE + ":memory:":
            return url
        path = (self.project.root / url.removeprefix(_SQLITE)).resolve()
        make_folder(path.parent)
        return _SQLITE + str(path)

    def _expand(self, template: str) -> str:
        filled = template.replace("{home}", str(self.project.home)).replace("{workspace}", self.name)
        return expand_variables(filled, os.environ)


def _known_online_store(text: str) -> str:
    scheme, separator, _ = text.partition("://")
    if separator and "$" not in scheme and not text.startswith((_SQLITE, *_REDIS)):
        raise ValueError(f"an online store is a path, sqlite:///PATH or redis://HOST:PORT/DATABASE, not {scheme}://")
    return text


def expand_variables(text: str, environment: Mapping[str, str], where: str = FILE_NAME) -> str:
    """Replace every `${NAME}` in `text`, called `where` in messages, from `environment`.

    Raises:
        ConfigError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        try:
            return environment[match[1]]
        except KeyError:
            raise ConfigError(f"{where} uses ${{{match[1]}}}, which is not set in the environment") from None

    return _VARIABLE.sub(value, text)


def shipped_folder(name: str) -> Path:
    """Return `model_zoo` or `feature_repo` as shipped: from the checkout, else from the wheel."""
    checkout = CHECKOUT / name
    return checkout if (CHECKOUT / "pyproject.toml").is_file() and checkout.is_dir() else TEMPLATES / name


def read_settings(path: Path) -> ProjectSettings:
    """Read and check playbill.toml.

    Raises:
        ConfigError: It is no TOML, or has unknown keys or wrong values; all are named.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    try:
        return ProjectSettings.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(item) for item in error.errors()]
        raise ConfigError("\n  ".join([f"{path}: {len(problems)} problem(s)", *problems])) from None


_MOVED = {"training.ray_address": "services.ray_address", "features.ray.address": "services.ray_address"}
"""Keys of earlier releases."""


def _explain(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where}: {item['msg']}"
    if where in _MOVED:
        return f"{where}: is now {_MOVED[where]}, one cluster for the whole project."
    known = _known_keys(tuple(item["loc"][:-1]))
    hint = did_you_mean(str(item["loc"][-1]), known, f"Known: {', '.join(known)}.")
    return f"{where}: unknown key. {hint}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    section: type[Settings] = ProjectSettings
    tables: dict[str, type[Settings]] = {"services": ServicesSettings, "serving": ServingSettings}
    tables["features"], tables["training"] = FeaturesSettings, TrainingSettings
    if location:
        section = WorkspaceSettings if location[0] == "workspaces" else tables.get(location[0], ProjectSettings)
        nested: dict[tuple[Any, ...], type[Settings]] = {
            ("features", "ray"): FeaturesRaySettings,
            ("serving", "limits"): LimitsSettings,
        }
        section = nested.get(location, section)
    return sorted(section.model_fields)
