"""Errors that a user can act on: what was given, what was expected, what to do.

Every error raised on purpose derives from `PlatonicRayError`; the command line prints its text in
one block, without a traceback, and exits with `exit_status`. All of them can be pickled, because
they cross from Ray workers to the driver. Anything else that surfaces is a bug of ours.
"""

from __future__ import annotations


class PlatonicRayError(Exception):
    """Base of all errors meant for people."""

    exit_status = 1


class StudyError(PlatonicRayError, ValueError):
    """A study, option or argument that cannot be run as given (unknown key, k ≥ n, …)."""

    exit_status = 2


class DataError(PlatonicRayError, ValueError):
    """Samples or features that cannot be used (empty caption, broken image, NaN feature, …)."""

    exit_status = 3


class WeightsError(PlatonicRayError):
    """Weights that cannot be had: no network, no such file, a hash that does not match."""

    exit_status = 4


class StoreError(PlatonicRayError):
    """A store that cannot be read or written: no permission, disk full, another version."""

    exit_status = 5


class RunError(PlatonicRayError):
    """A run that could not finish although its input is fine (work lost too many times, …)."""

    exit_status = 6


class StoppedError(RunError):
    """A run elsewhere that was told to end before it was through; what it finished is kept."""

    exit_status = 130
