"""Check that the sdist and the wheel hold every file of the package, and nothing else.

The folders at the top of the tree are imported as parts of `xlstm_rl` through a map in setup.py and
through relative links. Both are easy to break without any test noticing, because tests run on the
tree itself; so this builds the distributions in a copy and looks inside. The wheel is built twice:
with a C compiler, where it holds the native backend, and without one.

Usage: check_distributions.py [CHECKOUT]    (CHECKOUT: whose git to ask about the links, if any;
                                             the tree of this file by default)
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from xlstm_rl.kernels.native.compilation import find_compiler

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("kernels", "agents", "envs", "configs")
SUFFIXES = (".py", ".yaml", ".c", ".h", ".html", ".css", ".js")
LIBRARY = re.compile(r"xlstm_rl/kernels/native/_native-\w+\.so")
NOT_COPIED = ("build", "dist", "__pycache__", "*.egg-info", ".*")
OUTPUT_FOLDERS = {"runs", "wandb"}  # of the root alone: a folder of the package may be called so
SDIST_EXTRAS = {
    "LICENSE",
    "MANIFEST.in",
    "PKG-INFO",
    "README.md",
    "pyproject.toml",
    "setup.cfg",
    "setup.py",
}

IMPORTS = """
import pathlib, sys
from importlib.metadata import entry_points
import xlstm_rl, xlstm_rl.configs, xlstm_rl.kernels
site = pathlib.Path(sys.argv[1]).resolve()
for module in (xlstm_rl, xlstm_rl.configs, xlstm_rl.kernels):
    home = pathlib.Path(module.__file__).resolve()
    assert site in home.parents, f"{module.__name__} was imported from {home}, not from {site}"
(script,) = entry_points(group="console_scripts", name="xlstm-rl")
script.load()
native = xlstm_rl.kernels.backends()["native"]
assert native.runs == (sys.argv[2] == "native"), native
assert native.runs or "it was not built when the package was installed" in native.about, native
"""


def main() -> None:
    """Run all checks; print what is wrong and exit with status 1 if anything is."""
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    problems = check_links(checkout) + check_bare_names()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=not_copied)
        sdist, wheel = build(copy, Path(folder) / "dist")
        problems += check_sdist(sdist)
        problems += check_wheel(wheel, "native") + check_installed(wheel, Path(folder), "native")
        wheel = build_without_compiler(sdist, Path(folder) / "pure")
        problems += check_wheel(wheel, "pure") + check_installed(wheel, Path(folder), "pure")
    for problem in problems:
        print(f"error: {problem}")
    if problems:
        sys.exit(1)
    print(f"{len(source_files())} files are in the sdist and in the wheel, and nothing else is")


def not_copied(folder: str, names: list[str]) -> set[str]:
    """Return which entries of a folder of the checkout no distribution is built from."""
    ignored = shutil.ignore_patterns(*NOT_COPIED)(folder, names)
    return ignored | (OUTPUT_FOLDERS & set(names) if Path(folder) == ROOT else set())


def source_files() -> dict[str, str]:
    """Return the path in the wheel of every file of the package, by its path in the tree."""
    found: dict[str, str] = {}
    for top in ("xlstm_rl", *FOLDERS):
        for folder, subfolders, names in os.walk(ROOT / top):  # does not follow the links
            subfolders[:] = [name for name in subfolders if name != "__pycache__"]
            for name in names:
                path = (Path(folder) / name).relative_to(ROOT).as_posix()
                if name.endswith(SUFFIXES) or name == "py.typed":
                    found[path] = path if top == "xlstm_rl" else f"xlstm_rl/{path}"
    return found


def check_links(checkout: Path) -> list[str]:
    """Return what is wrong with the links from the package to the folders."""
    problems = []
    for folder in FOLDERS:
        link = ROOT / "xlstm_rl" / folder
        if not link.is_symlink() or os.readlink(link) != f"../{folder}":
            problems.append(f"xlstm_rl/{folder} is not a link to ../{folder}")
    if (checkout / ".git").exists():
        names = [f"xlstm_rl/{folder}" for folder in FOLDERS]
        listed = run("git", "-C", str(checkout), "ls-files", "--stage", "--", *names).splitlines()
        committed = {line.split("\t")[1] for line in listed if line.startswith("120000 ")}
        problems += [
            f"git does not hold {name} as a link" for name in names if name not in committed
        ]
    return problems


def check_bare_names() -> list[str]:
    """Return the folders that can be imported by their bare names from the root of the tree."""
    problems = []
    for folder in FOLDERS:
        tried = subprocess.run(
            [sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True
        )
        if f"ImportError: this folder is the package xlstm_rl.{folder}" not in tried.stderr:
            problems.append(f"`import {folder}` is not refused with the name to use instead")
    return problems


def build(tree: Path, out: Path) -> tuple[Path, Path]:
    """Build the sdist from `tree` and the wheel from the sdist."""
    out.mkdir()
    compiler = out.parent / "cc"  # what is packed is looked at here, not how fast it runs
    compiler.write_text(f'#!/bin/sh\nexec {shlex.join(find_compiler())} "$@" -O0\n')
    compiler.chmod(0o755)
    run(sys.executable, "-m", "build", "--outdir", str(out), str(tree), CC=str(compiler))
    (sdist,) = out.glob("*.tar.gz")
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


def build_without_compiler(sdist: Path, out: Path) -> Path:
    """Build the wheel from the sdist where there is no C compiler; it must say so in one line."""
    command = (sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", str(out))
    said = run(*command, str(sdist), PATH="/nonexistent", CC="")
    lines = [line for line in said.splitlines() if "the native CPU backend was not built" in line]
    if len(lines) != 1 or "no C compiler was found" not in lines[0]:
        sys.exit(f"a build without a compiler does not say so in one line: {lines}\n{said}")
    (wheel,) = out.glob("*.whl")
    return wheel


def check_sdist(sdist: Path) -> list[str]:
    """Return what is missing from the sdist and what should not be in it."""
    with tarfile.open(sdist) as archive:
        members = [member for member in archive.getmembers() if not member.isdir()]
    names = {member.name.split("/", 1)[1] for member in members}
    names = {name for name in names if not name.startswith("xlstm_rl.egg-info/")}
    return differences("the sdist", names - SDIST_EXTRAS, set(source_files()))


def check_wheel(wheel: Path, kind: str) -> list[str]:
    """Return what is missing from a wheel, what should not be in it, and what is wrong in its name.

    `kind` is "native" where it should hold the compiled libraries, or "pure".
    """
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    libraries = {name for name in names if LIBRARY.fullmatch(name)}
    problems = differences(f"the {kind} wheel", names - libraries, set(source_files().values()))
    if bool(libraries) != (kind == "native"):
        problems.append(f"the {kind} wheel holds the libraries {sorted(libraries)}")
    platform = wheel.stem.split("-py3-none-")[-1]
    if (platform == "any") != (kind == "pure"):
        problems.append(f"the {kind} wheel is called {wheel.name}")
    return problems


def differences(archive: str, found: set[str], expected: set[str]) -> list[str]:
    """Return a line for every name that is in one of the two sets alone."""
    missing = [f"{archive} lacks {name}" for name in sorted(expected - found)]
    return missing + [f"{archive} should not hold {name}" for name in sorted(found - expected)]


def check_installed(wheel: Path, folder: Path, kind: str) -> list[str]:
    """Return why an installed wheel is not what it should be far from the tree, if it is not."""
    site = folder / f"site-{kind}"
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)
    )
    env = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", IMPORTS, str(site), kind]
    tried = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return [f"the installed {kind} wheel: {tried.stderr}"] if tried.returncode else []


def run(*command: str, **environment: str) -> str:
    """Run a command and return what it printed; show everything and exit if it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}\nfailed with status {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
