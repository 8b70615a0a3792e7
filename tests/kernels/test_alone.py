import subprocess
import sys

ALONE = """
import sys

class Blocked:
    names = {"ray", "pyarrow", "polars", "transformers", "pydantic", "sklearn", "matplotlib", "rich"}
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import torch
import platonic_ray.kernels as kernels
x = kernels.prepare(kernels.as_rows(torch.eye(4)), "l2")
assert kernels.exact_neighbors(x, 2, "0" * 64).ids.shape == (4, 3)
assert kernels.canonical_dot(x[0], x[0]) == 1
"""


def test_kernels_work_where_there_is_torch_and_nothing_else_of_ours() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
