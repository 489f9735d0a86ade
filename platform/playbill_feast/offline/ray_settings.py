"""What `offline_store: {ray: ...}` may say. Imports no Ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class RaySettings(BaseModel):
    """How the Ray engine of the offline store runs. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    address: str | None = None
    """A running cluster: `host:port` or `auto`. None is that of RAY_ADDRESS, else one is started for each retrieval."""
    workers: PositiveInt | None = None
    """Partitions that are joined at once. None = as many as the cluster's CPUs allow."""
    cpus_per_worker: PositiveInt = 1
    """CPUs that each of them takes; polars uses as many threads."""
    partitions: PositiveInt | None = None
    """Parts that the entity keys are cut into by their hash. More parts need less memory each. None = 4 per worker."""
    start_timeout_s: PositiveFloat = 60.0
    """How long to wait for the cluster, and for its CPUs to be free, before giving up."""
    object_store_mib: int | None = Field(default=None, ge=75)
    """Shared memory of a cluster that is started here. None = Ray's own choice, 30 % of the machine's memory."""
