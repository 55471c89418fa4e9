"""Map the top-level folders to their import names; everything else is in pyproject.toml.

`kernels`, `agents`, `envs` and `configs` stand beside `xlstm_rl/` in the tree but are imported as
`xlstm_rl.kernels` and so on: their bare names belong to other packages.
"""

from setuptools import find_packages, setup

FOLDERS = ("kernels", "agents", "envs", "configs")

linked = {f"xlstm_rl.{folder}" for folder in FOLDERS}
packages = [
    name
    for name in find_packages(include=["xlstm_rl", "xlstm_rl.*"])
    if ".".join(name.split(".")[:2]) not in linked
]
for folder in FOLDERS:
    packages += [f"xlstm_rl.{name}" for name in find_packages(include=[folder, f"{folder}.*"])]

setup(
    packages=packages,
    package_dir={f"xlstm_rl.{folder}": folder for folder in FOLDERS},
)
