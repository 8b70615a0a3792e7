"""Fast products that propose neighbors: rows centered and rounded as `frame` says, and their scores."""

from __future__ import annotations

import warnings
from typing import Literal

import torch
from torch import Tensor

from platonic_ray.kernels import frame
from platonic_ray.kernels.frame import SUM_COLUMNS, Frame, bias_of, centered, framed, in_range, not_too_long

# Once a process, torch says that its sparse matrices may change; what is used of them here is tested.
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")

_WIDE = 512  # from this width on half a product and its transposition cost less than a whole one


class Rows:
    """Rows as a `Proposer` has centered them.

    `centered` holds their columns, `SUM_COLUMNS` at a time, each part `[n, ≤ 512] float32`; `low` all of
    them in bfloat16, `[n, D]`, None where that is not fast; `norms` `[n] float64` are upper bounds on the
    exact norms.
    """

    def __init__(self, rows: Tensor, center: Tensor, scale: float) -> None:
        count, self.width = rows.shape
        self.centered: list[Tensor] = []
        self.low: Tensor | None = None
        if frame.fast_bfloat16(rows.device.type):
            self.low = torch.empty(count, self.width, dtype=torch.bfloat16, device=rows.device)
        squares = torch.zeros(count, dtype=torch.float64, device=rows.device)
        # A part stays in the cache while all is made of it.
        for start in range(0, self.width, SUM_COLUMNS):
            columns = slice(start, start + SUM_COLUMNS)
            part = centered(rows[:, columns], center[columns], scale)
            squares += torch.linalg.vector_norm(part, dim=1).double().square_()
            if self.low is not None:
                self.low[:, columns] = part
            self.centered.append(part)
        self.norms = frame.upper_norms(squares, self.width)

    def parts(self, dtype: torch.dtype) -> list[Tensor]:
        """Return the columns in a dtype of products."""
        if dtype == torch.bfloat16:
            assert self.low is not None
            return [self.low]
        return self.centered


class Proposer:
    """A gallery that is ready to be ranked, `[g, D] float32`, by "inner" or "euclidean" similarity.

    `fit` is False where its numbers are too large, too small or too much alike for float32; then
    nothing else here may be called. `dtypes` are those of the products there are, fastest first.
    """

    def __init__(self, gallery: Tensor, similarity: Literal["inner", "euclidean"]) -> None:
        scale, center = 1.0, gallery.mean(0)
        self.own = Rows(gallery, center, 1.0)
        if not in_range(self.own.norms):
            largest = torch.stack(gallery.aminmax()).abs().amax().double()
            # Half of the largest entry's power of two, so that no difference reaches two.
            scale = 2.0 ** -(int(torch.frexp(largest).exponent) + 1)
            center = frame.scaled(gallery, scale).mean(0)
            self.own = Rows(gallery, center, scale)
        self.fit = in_range(self.own.norms)
        parts = zip(self.own.centered, center.split(SUM_COLUMNS), strict=True)
        made = framed(center, scale, self.own.norms, bias_of(parts, similarity), similarity)
        self.frame: Frame = made.frame
        self._bias = made.biases
        self.dtypes = (torch.float32,) if self.own.low is None else (torch.bfloat16, torch.float32)

    def queries(self, rows: Tensor) -> Rows | None:
        """Return queries `[q, D] float32` for this gallery; None if they are not fit for float32."""
        found = Rows(rows, self.frame.center, self.frame.scale)
        return found if not_too_long(found.norms) else None

    def scores(self, queries: Rows, chosen: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """Return proposed scores `[c, g]` of the queries `chosen`, computed and returned in `dtype`."""
        every = queries is self.own and isinstance(chosen, slice) and chosen == slice(0, self._bias.shape[0])
        right = self.own.parts(dtype)
        if every and queries.width >= _WIDE:
            product = _gram(right)
        else:
            product = products([part[chosen] for part in queries.parts(dtype)], right)
        return product.add_(self._bias.to(dtype))

    def refine(self, queries: Rows, row: Tensor, column: Tensor) -> Tensor:
        """Return scores `[p] float64` of the pairs (row, column), `row` ascending, to `refined_error`."""
        count = queries.norms.shape[0]
        starts = torch.zeros(count + 1, dtype=torch.int64, device=row.device)
        starts[1:] = torch.bincount(row, minlength=count).cumsum(0)
        zeros = torch.zeros(row.shape[0], dtype=torch.float32, device=row.device)
        size = (count, self._bias.shape[0])
        pattern = torch.sparse_csr_tensor(starts, column, zeros, size, check_invariants=False)
        scores = self._bias[column]
        for left, right in zip(queries.centered, self.own.centered, strict=True):
            scores += torch.sparse.sampled_addmm(pattern, left, right.T, beta=0.0).values()
        return scores


def products(left: list[Tensor], right: list[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the products of rows that are given as parts of their columns."""
    product = torch.mm(left[0], right[0].T, out=out)
    for a, b in zip(left[1:], right[1:], strict=True):
        product.addmm_(a, b.T)
    return product


def _gram(rows: list[Tensor], block: int = 256) -> Tensor:
    """Return the products of rows with each other; what is above the diagonal serves below it too."""
    count = rows[0].shape[0]
    product = torch.empty(count, count, dtype=rows[0].dtype, device=rows[0].device)
    for start in range(0, count, block):
        stop = min(start + block, count)
        strip = products([part[start:stop] for part in rows], [part[start:] for part in rows])
        product[start:stop, start:] = strip
        product[stop:, start:stop] = strip[:, stop - start :].T
    return product
