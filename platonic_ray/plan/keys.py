"""What a study's artifacts are called: geometry and keys, which follow from content alone.

A key is a digest of everything that determines what it names, so that what is found under it can be
read instead of made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from platonic_ray.digest import digest
from platonic_ray.kernels import CLAMPED, Kernel
from platonic_ray.plan.tasks import ColumnSums, KernelProducts, PermutedKernel, Scale, Span, cut

_NEIGHBORS_VERSION = 1
_RECIPES_VERSION = 1
_PERMUTED_VERSION = 4
_KERNELS_VERSION = 4
_SCALES_VERSION = 1
_COLUMNS_VERSION = 1
_PRODUCTS_VERSION = 1
_SCORES_VERSION = 1


def features_key(
    model: str,
    samples: str,
    corpus: str | None = None,
    kept: str = "float32",
    predicted: str | None = None,
) -> str:
    """Return the key of a shard of features.

    :param model: key of the model's specification.
    :param samples: digest of the content of the shard's samples.
    :param corpus: digest of the whole view, for a model that is fitted on it.
    :param kept: the type that features are kept in.
    :param predicted: digest of the texts of which the likelihood is measured beside, where they are others.
    """
    more = ({} if kept == "float32" else {"kept": kept}) | ({"predicted": predicted} if predicted else {})
    return digest({"kind": "features", "model": model, "samples": samples, "corpus": corpus, **more})


@dataclass(frozen=True)
class PlannedModel:
    """A model of the study: its name, the view it reads, and the key of each shard of its features.

    `tie_digest` stands for the representation (without its layer) in the tie rule: it is known
    before any feature is, so that tiles can start before the last shard is embedded.
    """

    name: str
    view: str
    tie_digest: str
    shard_keys: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """A study cut into shards and blocks, and the keys of what is made of them.

    `k` is the largest k of the study's neighbor metrics (None: there is none), and `row_sums` says
    whether any of them needs the row sums of the linear kernel; `kernels` are those whose sums its
    metrics need. Linear ones are summed by products of `product_rows` rows at a time, where that is not 0
    (by tiles). `permuted` is what the nulls of kernel metrics need, and `drawn` a digest of how their
    permutations are drawn; where `grouped`, samples change places within groups alone. `states` says whether
    any metric needs states of layers that are known beforehand, `winners` whether scores read features of
    layers that only they know. `scoring` is a digest of everything beside two models that their scores depend
    on; where it is empty, scores are not kept.
    """

    n: int
    shard_rows: int
    block_rows: int
    recipe: str
    k: int | None
    kernels: tuple[Kernel, ...]
    models: tuple[PlannedModel, ...]
    permuted: tuple[PermutedKernel, ...] = ()
    drawn: str = ""
    grouped: bool = False
    row_sums: bool = False
    states: bool = False
    winners: bool = False
    scoring: str = ""
    product_rows: int = 0

    @cached_property
    def shards(self) -> tuple[Span, ...]:
        """Rows of each shard."""
        return cut(self.n, self.shard_rows)

    @cached_property
    def blocks(self) -> tuple[Span, ...]:
        """Rows of each block."""
        return cut(self.n, self.block_rows)

    @cached_property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """Every tile (a, b) with a ≤ b, in the order in which embedding makes them possible."""
        return tuple((a, b) for b in range(len(self.blocks)) for a in range(b + 1))

    @cached_property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Every pair of models x ≤ y, each model with itself included."""
        return tuple((x, y) for y in range(len(self.models)) for x in range(y + 1))

    def shards_of(self, *blocks: int) -> tuple[int, ...]:
        """Return the shards that hold the rows of some blocks, ascending."""
        wanted: set[int] = set()
        for block in blocks:
            wanted.update(self.shards_within(self.blocks[block]))
        return tuple(sorted(wanted))

    def kernel_shards(self, a: int, b: int) -> tuple[int, ...]:
        """Return the shards that a kernel tile reads: its blocks', and the first for the origin."""
        return self.shards_of(0, a, b)

    @cached_property
    def ranges(self) -> tuple[Span, ...]:
        """Rows of each range of products."""
        return cut(self.n, self.product_rows) if self.product_rows else ()

    def by_products(self, kernel: Kernel) -> bool:
        """Whether a kernel is summed by products of rows, and not by tiles."""
        return kernel.form == "linear" and self.product_rows > 0

    def shards_within(self, span: Span) -> tuple[int, ...]:
        """Return the shards that hold some rows, ascending."""
        return tuple(range(span.start // self.shard_rows, -(-span.stop // self.shard_rows)))

    def clamp_key(self, model: int) -> str:
        """Key of what a model is clamped to: it depends on all of its rows and layers."""
        return digest(
            {
                "kind": "recipes",
                "version": _RECIPES_VERSION,
                "recipe": self.recipe,
                "features": self.models[model].shard_keys,
            }
        )

    def recipe_key(self, *models: int) -> str | list[str]:
        """Return what stands for the recipe in the key of what is made from some rows of models."""
        return [self.recipe, *map(self.clamp_key, models)] if self.recipe in CLAMPED else self.recipe

    def neighbors_key(self, model: int, a: int) -> str:
        """Key of a block's neighbors: they depend on every row of the model."""
        return digest(
            {
                "kind": "neighbors",
                "version": _NEIGHBORS_VERSION,
                "features": self.models[model].shard_keys,
                "ties": self.models[model].tie_digest,
                "recipe": self.recipe,
                "k": self.k,
                **({"row_sums": True} if self.row_sums else {}),
                "rows": [self.blocks[a].start, self.blocks[a].stop],
            }
        )

    def scales_key(self, scale: Scale) -> str:
        """Key of a model's median distances: they depend on all of its rows."""
        return digest(
            {
                "kind": "scales",
                "version": _SCALES_VERSION,
                "features": self.models[scale.model].shard_keys,
                "recipe": self.recipe,
                "precision": scale.precision,
            }
        )

    def scale_of(self, kernel: Kernel, model: int) -> Scale | None:
        """Return the task that a kernel's width comes from, where it is a multiple of the median."""
        return None if kernel.median is None else Scale(model, kernel.precision)

    def kernels_key(self, a: int, b: int, kernel: Kernel, x: int, y: int) -> str:
        """Key of a pair's kernel sums over one tile: they depend on the rows of its two blocks.

        Where the kernel's width is a multiple of a median, on all rows.
        """
        shards = self.kernel_shards(a, b)
        scales = [self.scale_of(kernel, model) for model in (x, y)]
        return digest(
            {
                "kind": "kernels",
                "version": _KERNELS_VERSION,
                "unary": x == y,  # a model with itself brings more, also where another has its features
                "x": [self.models[x].shard_keys[shard] for shard in shards],
                "y": [self.models[y].shard_keys[shard] for shard in shards],
                "first_shard_rows": [self.shards[shard].start for shard in shards],
                "recipe": self.recipe_key(x, y),
                "kernel": kernel.key,
                "scales": [None if scale is None else self.scales_key(scale) for scale in scales],
                "tile": [[self.blocks[i].start, self.blocks[i].stop] for i in (a, b)],
            }
        )

    def columns_key(self, task: ColumnSums) -> str:
        """Key of the sums of a model's columns: they depend on all of its rows."""
        return digest(
            {
                "kind": "columns",
                "version": _COLUMNS_VERSION,
                "features": self.models[task.model].shard_keys,
                "recipe": self.recipe,
                "kernel": task.kernel.key,
            }
        )

    def products_key(self, task: KernelProducts, x: int, y: int) -> str:
        """Key of a pair's products of a range of rows: the rows' own sums depend on all rows of both."""
        span = self.ranges[task.part]
        return digest(
            {
                "kind": "kernels",
                "products": _PRODUCTS_VERSION,
                "unary": x == y,
                "x": self.models[x].shard_keys,
                "y": self.models[y].shard_keys,
                "recipe": self.recipe,
                "kernel": task.kernel.key,
                "rows": [span.start, span.stop],
            }
        )

    def permuted_key(self, task: PermutedKernel, x: int, y: int) -> str:
        """Key of two models' inner products of a kernel under some permutations: they depend on all rows of both.

        Within groups the last bits depend on which models are multiplied together, which are all.
        """
        together = range(len(self.models)) if self.grouped else ()
        return digest(
            {
                "kind": "permuted",
                "version": _PERMUTED_VERSION,
                "x": self.models[x].shard_keys,
                "y": self.models[y].shard_keys,
                "together": [self.models[model].shard_keys for model in together],
                "recipe": self.recipe,
                "kernel": task.kernel.key,
                "drawn": self.drawn,
                "permutations": [task.start, task.stop],
            }
        )

    def scores_key(self, x: int, y: int) -> str:
        """Key of the scores of two models: they depend on all rows of both, and on no other model."""
        return digest(
            {
                "kind": "scores",
                "version": _SCORES_VERSION,
                "scoring": self.scoring,
                "with_itself": x == y,  # one model under two names is two models
                "recipe": self.recipe,
                "models": [
                    {"features": self.models[model].shard_keys, "ties": self.models[model].tie_digest}
                    for model in (x, y)
                ],
            }
        )
