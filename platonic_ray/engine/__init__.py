"""Running studies: in this process (the oracle), and on Ray. See `platonic_ray.engine.run`."""

from platonic_ray.engine.run import default_store, embed_study, read_result, run_study

__all__ = ["default_store", "embed_study", "read_result", "run_study"]
