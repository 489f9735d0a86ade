"""Models: one network for many canvases, how it is trained, measured and promoted."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from playbill.definitions.specs.base import (
    MODEL_REFERENCE_PATTERN,
    CanvasName,
    CanvasReference,
    Definition,
    ModelReference,
    Name,
    Rate,
    Reference,
    Size,
    Spec,
    added_later,
    read_options,
)
from playbill.definitions.specs.context import ContextsSpec
from playbill.definitions.specs.head import HeadSpec
from playbill.definitions.specs.measures import EvaluateSpec, GateSpec
from playbill.definitions.specs.network import Balance, BalanceOptions, GatedTransformerOptions, Trunk
from playbill.registry import Plugin, Registry

MetadataField = Literal["genres", "kind", "original_language", "release_year", "name", "synopsis"]


class HistorySpec(Spec):
    """What the network reads of a member's past."""

    length: int = Field(default=200, ge=1, le=10_000)
    """Tokens at most, the newest ones (axis L)."""
    merge: Literal["same_title", "session", "none"] = "same_title"
    """Which events become one token: with `same_title` adjacent ones on one title, with `session` only those of them
    that no pause of more than thirty minutes parts."""


class TextOptions(Spec):
    """A synopsis is read by its hashed words alone. Also the options of `grams`."""

    type: str = "grams"
    """`grams`, `lsa`, or one that an outside package adds."""


class LsaOptions(TextOptions):
    """Beside its hashed words a synopsis has a vector, by latent semantic analysis of all of them (scikit-learn)."""

    width: Size = 64
    """Numbers in it."""


_SPECS = "playbill.definitions.specs.model"
TEXT_ENCODERS = Registry(
    "text encoder",
    "playbill.text_encoders",
    {
        "grams": Plugin("playbill.models.embeddings:GramSpace", f"{_SPECS}:TextOptions"),
        "lsa": Plugin("playbill.models.text_encoders:lsa", f"{_SPECS}:LsaOptions"),
    },
)
"""All but `grams` are `playbill.models.text_encoders.TextEncoder`, and have `width` among their options."""


def read_text(value: Any) -> Any:
    """Check the options of a text encoder by the spec it registers; a bare name takes its defaults."""
    return read_options(value, TEXT_ENCODERS, TextOptions, "grams")


class TitlesSpec(Spec):
    """How a title becomes a vector."""

    id_embedding: bool = True
    """A learned vector of each title seen in training."""
    metadata: tuple[MetadataField, ...] = (
        "genres",
        "kind",
        "original_language",
        "release_year",
        "name",
        "synopsis",
    )
    """What the metadata vector is made of."""
    age_gate: bool = True
    """Mix id and metadata vector by the title's age."""
    id_mask: float = Field(default=0.1, ge=0, lt=1)
    """Share of id vectors hidden in training, so that metadata has to work."""
    fallback: Literal["kind", "none"] = added_later("none")
    """What stands beside the metadata of a title whose id is hidden, or was never trained: with `kind` a learned vector
    of its kind, one for all where `kind` is not among `metadata`."""
    negatives: Literal["all", "seen"] = added_later("all")
    """Titles that what was played is ranked against in training: `all`, or those `seen`, which have a play or another
    example there. Nobody could play a title that launches later, and `all` has the model learn that nobody wants it."""
    text: Annotated[SerializeAsAny[TextOptions], BeforeValidator(read_text)] = added_later(TextOptions())
    """How the synopsis is read."""
    svd_start: bool = True
    """Start id vectors from a factorisation of the log instead of noise."""
    snapshot_hours: int = Field(default=24, ge=1, le=8760)
    """Title features are read at closed buckets of this many hours, everywhere alike."""

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> Self:
        if not self.id_embedding and not self.metadata:
            raise ValueError("a title needs 'id_embedding', some 'metadata', or both")
        if self.fallback == "kind" and not self.id_embedding:
            raise ValueError("'fallback: kind' stands in for an id, so it needs 'id_embedding'")
        if self.text.type != "grams" and "synopsis" not in self.metadata:
            raise ValueError(f"'text: {self.text.type}' reads the synopsis, which is not among 'metadata'")
        return self


class TaskSpec(Spec):
    """Where a canvas without logs of its own gets training examples from."""

    source: Literal["title_names", "co_play"] = Field(alias="from")
    """`title_names`: search queries made from names. `co_play`: source titles from what was played together."""
    share: float = Field(default=0.1, gt=0, le=1)
    """Examples made per logged example."""


class TrainingSpec(Spec):
    """The optimiser's recipe."""

    epochs: int = Field(default=8, ge=1, le=1000)
    """Passes over the training windows."""
    min_steps: int = Field(default=0, ge=0, le=10_000_000)
    """At least so many optimizer steps: small data gets more passes than `epochs`."""
    max_epochs: int = Field(default=1000, ge=1, le=1000)
    """Passes that `min_steps` brings at most: a log of few batches is learnt by heart before it has so many steps."""
    batch_slots: int = Field(default=3200, ge=1, le=10_000_000)
    """Tokens per batch; short histories make larger batches."""
    learning_rate: Rate = 2e-3
    """Peak of the one-cycle schedule."""
    head_rate: float = Field(default=1.0, gt=0, le=100)
    """Learning rate of what each head has of its own, over that of what heads share. A head learns from its own rows
    alone, so with many heads or few steps it needs more."""
    weight_decay: float = Field(default=0.01, ge=0, le=10)
    """Decoupled weight decay."""
    warm_up: float = Field(default=0.1, ge=0, lt=1)
    """Share of steps that lead up to the peak."""
    ema: float = Field(default=0.998, ge=0, lt=1)
    """Decay of the averaged weights that are kept; 0 keeps the last ones."""
    stride: int = Field(default=200, ge=1, le=10_000)
    """Tokens from one training window of a member to the next."""
    windows: Literal["sliding", "last", "mixed"] = added_later("sliding")
    """Which windows of a history an epoch reads: all of them, the last one of each member, or the last ones and a share
    of the earlier ones, others in each epoch."""
    earlier_share: float = added_later(0.25, gt=0, lt=1)
    """With `windows: mixed`, the share of the earlier windows."""
    full_softmax_titles: int = Field(default=4_000, ge=0, le=10_000_000)
    """Titles up to which `softmax` heads rank against every title; in a larger catalogue against drawn ones."""
    seed: int = Field(default=17, ge=0, lt=2**63)
    """Seed of weights, order and dropout."""

    @model_validator(mode="after")
    def _share_of_mixed(self) -> Self:
        if self.earlier_share != 0.25 and self.windows != "mixed":
            raise ValueError(f"'earlier_share' is of 'windows: mixed', and windows are '{self.windows}'")
        return self


class UpdateSpec(Spec):
    """How `playbill update` trains the champion on, with the events that came since it was trained."""

    new_titles: Literal["metadata_neighbours", "mean_noise", "fallback", "random"] = "metadata_neighbours"
    """Where the vector of a title starts that the champion has not learnt: the mean of the learnt titles that are most
    like it by metadata; the mean of all of them with a little noise; its own metadata vector with that of its kind; or
    noise alone. A model without metadata starts `metadata_neighbours` as `mean_noise`."""
    replay: float = Field(default=0.2, ge=0, lt=1)
    """Share of the examples that are older ones, drawn at random, so that what was learnt is not forgotten."""
    holdout: float = Field(default=0.1, gt=0, le=0.5)
    """Share of the new plays, the newest, that the gates are measured on; the next update learns from them."""
    epochs: int = Field(default=1, ge=1, le=1000)
    """Passes over the examples of a day. A window that is a large part of all events gets more, and as many as training
    has from a quarter of them on."""
    rate: float = Field(default=0.1, gt=0, le=1)
    """Peak of the learning rate over that of `training`."""
    title_rate: float = added_later(300.0, ge=1, le=1000)
    """Learning rate of how much a title is wanted (its bias, in all and on each canvas) over `rate`. An update has few
    steps, and what launched lately has far to go. A title moves as far as a step has something to say of it: one whose
    plays are as many as expected, or few in any case, hardly."""


class AdaptationSpec(Spec):
    """How the network bends to the country of a request; without a known country it is the global network."""

    country: Literal["none", "id", "gate", "low_rank"] = "none"
    """By country, beside what the context says of it: nothing; a vector in each head's query (`id`); gates that scale
    the state and what each head reads of it (`gate`); a low-rank matrix beside the projection of the state
    (`low_rank`)."""
    rank: Size = added_later(4)
    """Rank of a country's matrix, with `low_rank`."""
    width: Size = added_later(32)
    """Hidden units of the gates, with `gate`."""

    @model_validator(mode="after")
    def _options_of_what_is_wanted(self) -> Self:
        for name, kind in (("rank", "low_rank"), ("width", "gate")):
            if getattr(self, name) != type(self).model_fields[name].default and self.country != kind:
                raise ValueError(f"'{name}' is of 'country: {kind}', and this has 'country: {self.country}'")
        return self


class StartSpec(Spec):
    """A registered version whose weights a model begins from. A bare reference is a fine-tuned copy of it."""

    model: ModelReference
    """`foundation@champion`, `foundation:3`, or `foundation` for the newest; which version it was is in the run."""
    trunk: Literal["tuned", "frozen"] = "tuned"
    """`tuned`: everything is trained on. `frozen`: title tower, event tokens and trunk stay as they are, as a part of
    the network that only what comes after them is trained on."""

    @property
    def name(self) -> str:
        """The model without version or alias."""
        return re.split("[@:]", self.model, maxsplit=1)[0]

    @property
    def pinned(self) -> bool:
        """Whether it says a version or an alias."""
        return self.model != self.name

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> Any:
        # One way to write one thing: `spec_hash` and the lock read what this returns.
        return self.model if self.trunk == "tuned" else handler(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Offer the short form beside the long one."""
        return {"anyOf": [{"type": "string", "pattern": MODEL_REFERENCE_PATTERN}, handler(core_schema)]}


class OnlySpec(Spec):
    """Whose events a model learns from. It is measured on all of them, and answers all."""

    country: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9][A-Z0-9_-]*$")], ...] = Field(min_length=1)
    """Events of requests from these countries, as the log writes them."""


class SamplingSpec(Spec):
    """How often training examples are drawn in an epoch. Their weights restore what the log holds."""

    strata: tuple[Literal["country", "tenure"], ...] = Field(min_length=1)
    """Groups that must not be drowned by larger ones."""
    floor: float = Field(gt=0, lt=1)
    """Least share of an epoch's examples for each group."""


class ModelSpec(Definition):
    """A consolidated model: canvases, features, network, heads, training, measures and gates."""

    kind: Literal["Model"] = "Model"
    features: Name
    """Feast FeatureService of its features, in training and serving alike."""
    canvases: tuple[CanvasReference, ...] = Field(min_length=1)
    """The canvases it serves."""
    rows: tuple[Reference, ...] | None = None
    """The rows it fills; absent means every row of its canvases."""
    history: HistorySpec = HistorySpec()
    titles: TitlesSpec = TitlesSpec()
    contexts: ContextsSpec = ContextsSpec()
    """What of a request's context is used."""
    trunk: Trunk = GatedTransformerOptions()
    heads: dict[Name, HeadSpec] = Field(min_length=1)
    """What it predicts, by name; canvases and rows blend these, but for auxiliary ones."""
    balance: Balance = BalanceOptions()
    """How heads' losses are weighed against each other: by their own weights, or learned beside them."""
    tasks: dict[CanvasName, TaskSpec] = Field(default_factory=dict)
    """Canvas -> where it gets training examples from while it has no logs."""
    training: TrainingSpec = TrainingSpec()
    adaptation: AdaptationSpec = AdaptationSpec()
    init_from: StartSpec | None = None
    """The version it starts from, by name: what that has learnt of titles, events and contexts is taken over."""
    only: OnlySpec | None = added_later(None)
    """Learn from some events alone; without `init_from` nothing else of the log is learnt from, tables of terms
    included. A model that starts from another one keeps what that knows of titles that nobody played there."""
    sampling: SamplingSpec | None = None
    evaluate: EvaluateSpec = EvaluateSpec()
    gates: tuple[GateSpec, ...] = ()
    """All must hold before a promotion stands."""
    promote: Literal["manual", "auto"] = "manual"
    """`manual`: a person makes a version the champion. `auto`: `playbill update` does, where its gates pass."""
    update: UpdateSpec = added_later(UpdateSpec())
    """How the champion is trained on with new events."""

    @model_validator(mode="after")
    def _something_to_serve(self) -> Self:
        if all(head.auxiliary is not None for head in self.heads.values()):
            raise ValueError("every head is auxiliary, so there is none to serve; give one a 'label'")
        return self

    @model_validator(mode="after")
    def _adapts_to_what_it_reads(self) -> Self:
        if self.adaptation.country != "none" and "country" in self.contexts.without:
            raise ValueError("'adaptation' reads the country, which 'contexts.without' withholds")
        return self
