"""Map the top-level folders to their import names, and compile the native CPU backend if possible.

`kernels`, `agents`, `envs` and `configs` stand beside `xlstm_rl/` in the tree but are imported as
`xlstm_rl.kernels` and so on: their bare names belong to other packages. Everything else is in
pyproject.toml.
"""

import importlib.util
from pathlib import Path

from setuptools import Command, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build import build

FOLDERS = ("kernels", "agents", "envs", "configs")

NATIVE = Path("kernels", "native")
spec = importlib.util.spec_from_file_location("compilation", NATIVE / "compilation.py")
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)


class BuildNative(Command):
    """Compile the C code into what is built; into the tree for an editable install.

    Without a compiler the package is what it is on other platforms: it runs on torch.
    """

    description = "compile the native CPU backend, if a C compiler is there"
    user_options = ()

    def initialize_options(self):
        """Start from nothing."""
        self.build_lib = None
        self.editable_mode = False

    def finalize_options(self):
        """Take the folder of the Python files."""
        self.set_undefined_options("build_py", ("build_lib", "build_lib"))

    def run(self):
        """Compile, or warn in one line."""
        try:
            native.build(self.folder)
        except native.BuildError as error:
            self.warn(f"the native CPU backend was not built, torch takes its place: {error}")

    @property
    def folder(self):
        """Where the libraries go."""
        return NATIVE if self.editable_mode else Path(self.build_lib, "xlstm_rl", NATIVE)


class WheelOfThePlatform(bdist_wheel):
    """A wheel for one platform but any Python if it holds the library, else for all."""

    def run(self):
        """Build, look whether there is a library, pack."""
        self.run_command("build")
        if any(self.get_finalized_command("build_native").folder.glob("_native-*.so")):
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True  # so that all goes to platlib
        super().run()

    def get_tag(self):
        """Leave out Python and its ABI: the library knows neither."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else (self.python_tag, "none", platform)


class BuildWithNative(build):
    """The usual build, then the C code."""

    sub_commands = (*build.sub_commands, ("build_native", None))


linked = {f"xlstm_rl.{folder}" for folder in FOLDERS}
packages = [
    name
    for name in find_packages(include=["xlstm_rl", "xlstm_rl.*"])
    if ".".join(name.split(".")[:2]) not in linked
]
for folder in FOLDERS:
    packages += [f"xlstm_rl.{name}" for name in find_packages(include=[folder, f"{folder}.*"])]
packages.append("xlstm_rl.kernels.native.src")  # C alone, but setuptools takes it for a package

setup(
    packages=packages,
    package_dir={f"xlstm_rl.{folder}": folder for folder in FOLDERS},
    cmdclass={
        "bdist_wheel": WheelOfThePlatform,
        "build": BuildWithNative,
        "build_native": BuildNative,
    },
)
