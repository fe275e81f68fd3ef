"""Cython extensions and the package map; everything else is in pyproject.toml.

The folder ``backends/`` at the top installs as ``sage_actor.backends``. In a checkout the link sage_actor/backends points
at it, for type checkers; packages are therefore listed without following it.
"""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

CORE = Path("sage_actor/_core")

extensions = [
    Extension(f"sage_actor._core.{path.stem}", [path.as_posix()], include_dirs=[CORE.as_posix()], extra_compile_args=["-O3"])
    for path in sorted(CORE.glob("*.pyx"))
]

setup(
    packages=[
        *find_packages(include=["sage_actor", "sage_actor.*"], exclude=["sage_actor.backends", "sage_actor.backends.*"]),
        "sage_actor.backends",
    ],
    package_dir={"sage_actor": "sage_actor", "sage_actor.backends": "backends"},
    package_data={
        "sage_actor": ["py.typed"],
        "sage_actor._core": ["*.pyx", "*.pxd", "*.pyi", "*.h"],
        "sage_actor.server": ["*.html", "*.css", "*.js", "static/*", "static/*/*"],
    },
    include_package_data=False,
    ext_modules=cythonize(
        extensions,
        include_path=[CORE.as_posix()],
        compiler_directives={"language_level": "3", "boundscheck": False, "wraparound": False, "embedsignature": True},
        annotate=False,
    ),
)
