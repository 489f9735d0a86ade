"""The sizes and switches of a network: everything needed to build it again, as JSON.

A checkpoint is this configuration plus its weights. No Python object is ever unpickled to rebuild a model.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from playbill.definitions.specs.base import added_later
from playbill.definitions.specs.ensemble import MemberTerm
from playbill.definitions.specs.head import HistoryTerm, loss_options, loss_plugin
from playbill.definitions.specs.network import TrunkOptions, read_sharing, read_trunk


class NetworkPart(BaseModel):
    """An immutable piece of the configuration. An unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HeadConfig(NetworkPart):
    """One prediction head (axis K)."""

    name: str = Field(min_length=1)
    loss: str  # a registered loss: see `playbill.definitions.specs.head`
    options: dict[str, Any] = Field(default_factory=dict)  # of the loss
    target: Literal["title", "row", "page", "genres", "kind"] = "title"
    """What it scores; those about genres and kinds predict them of the next title, and are not served."""
    level: bool = False
    """Its scores have a term of the state alone, the same for every title: how likely the member is to do it at all."""
    weight: float = Field(default=1.0, ge=0)  # multiplier on this head's loss
    negative_weight: float = Field(default=1.0, gt=0)
    """For `bce` with drawn negatives: what those of a row weigh together, where the row weighs 1."""

    @property
    def ranks(self) -> bool:
        """Whether it ranks a target, so that only rows with a label above 0 train it."""
        return loss_plugin(self.loss).ranks

    @model_validator(mode="after")
    def _known_loss(self) -> HeadConfig:
        loss_options(self.loss, self.options)
        if self.level and not loss_plugin(self.loss).leveled:
            raise ValueError(f"titles compete in '{self.loss}', so a term that all of them share says nothing")
        return self


class TrunkConfig(NetworkPart):
    """The causal sequence model (axes L and D)."""

    type: str = "gated_transformer"  # a name registered under `playbill.trunks`
    dim: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 2  # attention heads; `dim` is a multiple of them
    dropout: float = Field(default=0.2, ge=0, lt=1)
    sharing: dict[str, Any] = Field(default={"type": "shared"}, validate_default=True)
    """Options of how heads share the state: see `playbill.definitions.specs.network`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """What the type's own spec has beyond the above, where it is not the default."""

    @classmethod
    def of(cls, options: TrunkOptions) -> TrunkConfig:
        """Return the trunk that a definition asks for."""
        shared = options.model_dump(include=set(TrunkOptions.model_fields))
        own = options.model_dump(exclude=set(TrunkOptions.model_fields), exclude_defaults=True)
        return cls(**shared, options=own)

    def own(self) -> Any:
        """Return the options as the type's own spec has them."""
        sizes = self.model_dump(include={"type", "dim", "layers", "heads", "dropout", "sharing"})
        return read_trunk(sizes | self.options)

    @model_serializer(mode="wrap")
    def _as_before_without_options(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Trunks without options are written as they were before there were any: the digests of runs stand."""
        found: dict[str, Any] = serialise(self)
        if not self.options:
            found.pop("options", None)
        return found

    @field_validator("sharing")
    @classmethod
    def _checked(cls, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = read_sharing(value).model_dump()
        return found

    @model_validator(mode="after")
    def _dim_divides(self) -> TrunkConfig:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.options:
            self.own()
        return self


class TitleConfig(NetworkPart):
    """The title tower. Every size counts index 0, which is unknown or padding."""

    titles: PositiveInt  # rows of the id table, padding row 0 included (axis T)
    genres: PositiveInt = 1
    kinds: PositiveInt = 1
    languages: PositiveInt = 1  # original languages
    release_years: PositiveInt = 1  # buckets of the release year
    numeric: NonNegativeInt = 0  # static numeric title features, nan = missing
    categorical: tuple[PositiveInt, ...] = ()  # sizes of the static categorical title features
    snapshot: NonNegativeInt = 0  # Time-dependent numeric title features (axis F of the snapshots)
    id_embedding: bool = True
    metadata: bool = True
    age_gate: bool = True
    fallback: bool = False  # whether a vector of its kind stands beside the metadata of a title without a usable id
    text_width: NonNegativeInt = 0  # numbers that a text encoder gives each synopsis; 0 = there is no encoder
    neighbours: NonNegativeInt = 0  # neighbours of each title that are kept for likeness; 0 = no blend asks for it
    companions: NonNegativeInt = 0
    """Titles played beside each title that are kept for likeness; 0 = no blend asks for it, or an older version."""
    id_mask: float = Field(default=0.1, ge=0, lt=1)
    """Share of title ids hidden at random in training, so that metadata alone must work."""


class EventConfig(NetworkPart):
    """The tokens of the history. Every size counts index 0, which is unknown or padding."""

    actions: PositiveInt = 1  # number of action bits in `HistoryBatch.actions`
    canvases: PositiveInt = 1
    countries: PositiveInt = 1
    devices: PositiveInt = 1
    languages: PositiveInt = 1
    gaps: PositiveInt = 1  # buckets of the time since the event before
    durations: PositiveInt = 1  # buckets of the time watched


class ContextConfig(NetworkPart):
    """The request's fields that are not among the event fields (axis C)."""

    numeric: NonNegativeInt = 0  # numeric member and request features, nan = missing
    categorical: tuple[PositiveInt, ...] = ()  # sizes of the categorical member and request features
    rows: PositiveInt = 1  # names of rows, index 0 counted
    row_positions: PositiveInt = 1  # buckets of a row's place on the page, index 0 counted
    named_queries: bool = False  # whether the name of the source title stands for the query somewhere
    imputation: bool = True  # whether something learned stands for a field that a request lacks; else it adds nothing
    crossing: bool = True  # cross the state with the context explicitly: `h * (1 + gate(c)) + W c`
    title_crossing: bool = False
    """Cross titles with canvases explicitly: every title has a bias on every canvas, in heads that rank."""


class TextConfig(NetworkPart):
    """Query and name text, as ids of hashed grams."""

    buckets: PositiveInt = 1  # number of gram ids; 1 switches text off
    dim: PositiveInt = 256  # Width of the matching space. Noise of a match falls with its square root.


class RowConfig(NetworkPart):
    """The row tower. Entry i of a list has index i + 1; index 0 is unknown, or none."""

    names: tuple[tuple[NonNegativeInt, ...], ...] = ()  # gram ids of what each row is called, without what it is about
    genres: tuple[tuple[NonNegativeInt, ...], ...] = ()  # gram ids of each genre's name


class HistoryTermsConfig(NetworkPart):
    """What is added to the scores of heads: see `models.history_terms`."""

    terms: tuple[HistoryTerm, ...] = Field(min_length=1)  # of `definitions.specs.head.HISTORY_TERMS` (axis K there)
    heads: tuple[str, ...] = Field(min_length=1)  # heads they are added to (axis H)
    neighbours: PositiveInt = 100  # titles kept of each (axis J)
    popularity: NonNegativeInt | None = None  # place of the week's plays among the snapshot's features


class AdaptationConfig(NetworkPart):
    """How the network bends to a request's country: see `models.adaptation`."""

    type: Literal["id", "gate", "low_rank"]
    rank: PositiveInt = 4  # of a country's weights, for `low_rank` (axis R)
    width: PositiveInt = 32  # hidden units of gates and width of the vectors that drive them, for `gate` (axis W)


class FoldedConfig(NetworkPart):
    """A network of its own that was folded into another: see `models.ensemble`."""

    width: PositiveInt  # of its title vectors (axis E there)
    heads: PositiveInt = 1  # that answer on some canvas (axis J there)


class EnsembleConfig(NetworkPart):
    """What stands beside the scores of heads in an ensemble: see `models.ensemble`."""

    members: tuple[str, ...] = Field(min_length=1)  # roles, without the base's (axis K there)
    heads: tuple[str, ...] = Field(min_length=1)  # of the base, that the members are added to (axis H)
    countries: PositiveInt = 1  # index 0 counted, which is unknown (axis G)
    folded: dict[str, FoldedConfig] = Field(default_factory=dict)  # role -> its sizes
    terms: dict[str, MemberTerm] = Field(default_factory=dict)  # role -> term
    tenure: bool = False  # whether the gate reads the member's tenure
    title_age: bool = False  # whether the gate reads the age of titles


class NetworkConfig(NetworkPart):
    """A whole network."""

    length: PositiveInt = 200  # longest history (axis L)
    trunk: TrunkConfig = TrunkConfig()
    titles: TitleConfig
    events: EventConfig = EventConfig()
    context: ContextConfig = ContextConfig()
    text: TextConfig = TextConfig()
    rows: RowConfig | None = None  # none where no head is about rows
    heads: tuple[HeadConfig, ...] = Field(min_length=1)
    history_terms: HistoryTermsConfig | None = None
    """None in training, which does not read them, and where no head has any."""
    ensemble: EnsembleConfig | None = added_later(None)
    """None but for an ensemble."""
    frozen: bool = added_later(False)
    """Title tower, event tokens and trunk are those of another version: training leaves them as they are."""
    adaptation: AdaptationConfig | None = added_later(None)
    """None where nothing but the context's own field reads the country."""

    @model_validator(mode="after")
    def _heads_have_own_names(self) -> NetworkConfig:
        names = [head.name for head in self.heads]
        if len(set(names)) != len(names):
            raise ValueError(f"head names must differ, got {names}")
        if not (self.titles.id_embedding or self.titles.metadata):
            raise ValueError("titles need id_embedding, metadata or both")
        return self

    def to_json(self) -> str:
        """Return the configuration as indented JSON, keys in declaration order."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> NetworkConfig:
        """Read what `to_json` wrote.

        Raises:
            pydantic.ValidationError: Unknown keys or wrong values.
        """
        return cls.model_validate_json(text)
