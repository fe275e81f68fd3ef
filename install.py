"""Builds .venv step by step: ``python install.py demo|test|check|bench|all``.

Each target holds the ones before it as far as it needs them, and what is in place already is not installed again. Nothing
outside the Python standard library is used, and nothing here is newer than Python 3.6: on a machine that lacks something,
this file must get as far as saying so.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
VENV_PYTHON = os.path.join(VENV, "bin", "python")
STAMPS = os.path.join(VENV, "stamps")
OLDEST = (3, 11)

# target -> the extras of pyproject.toml it needs beside the base package
TARGETS = {
    "demo": [],
    "test": ["test", "notebook"],
    "check": ["test", "notebook", "check"],
    "bench": ["bench"],
    "all": ["test", "notebook", "check", "bench"],
}

DEBIAN = "Debian or Ubuntu: sudo apt install"
FEDORA = "Fedora: sudo dnf install"


class Refused(Exception):
    """Something is missing that this program cannot install; the text says what to do."""


def say(text):
    print("install: " + text, flush=True)


def other_python():
    """A new enough Python elsewhere on PATH, tried by running it, or None."""
    for minor in range(20, OLDEST[1] - 1, -1):
        found = shutil.which("python3.%d" % minor)
        if found and subprocess.call([found, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return found
    return None


def check_version():
    if sys.version_info >= OLDEST:
        return
    have = "%d.%d (%s)" % (sys.version_info[0], sys.version_info[1], sys.executable)
    found = other_python()
    if found:
        say("Python %s is too old; going on with %s" % (have, found))
        sys.stdout.flush()
        os.execv(found, [found, os.path.abspath(__file__)] + sys.argv[1:])
    raise Refused(
        "sage_actor needs Python %d.%d or newer; this is %s and no newer one is on PATH.\n"
        "  %s python3.12 python3.12-venv python3.12-dev   |   %s python3.12 python3.12-devel\n"
        "  then: make PYTHON=python3.12 demo" % (OLDEST + (have, DEBIAN, FEDORA))
    )


def check_venv_module():
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        name = "python%d.%d-venv" % sys.version_info[:2]
        raise Refused(
            "this Python (%s) has no venv module (%s), so no virtual environment can be made.\n"
            "  %s %s" % (sys.executable, error, DEBIAN, name)
        ) from error


def check_compiler():
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    compiler = command.split()[0]
    if shutil.which(compiler) is None:
        # A Python built elsewhere remembers the name of a compiler that is not here; any C compiler will do.
        other = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
        if other is not None and "CC" not in os.environ:
            say("the compiler this Python was built with (%s) is not here; using %s" % (compiler, other))
            os.environ["CC"] = other
            return
        raise Refused(
            "no C compiler: %r is not on PATH. Parts of sage_actor are Cython and are compiled here.\n"
            "  %s build-essential   |   %s gcc   |   macOS: xcode-select --install" % (compiler, DEBIAN, FEDORA)
        )


def check_headers():
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if not os.path.exists(header):
        version = "%d.%d" % sys.version_info[:2]
        raise Refused(
            "the C headers of this Python are missing (%s).\n"
            "  %s python%s-dev   |   %s python%s-devel" % (header, DEBIAN, version, FEDORA, version)
        )


def preflight():
    check_version()
    check_venv_module()
    check_compiler()
    check_headers()


def run(*command):
    """Run quietly; what a failing command wrote is shown."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        shown = "\n".join(done.stdout.strip().splitlines()[-40:])
        raise Refused("this failed (exit status %d):\n  %s\n%s" % (done.returncode, " ".join(command), shown))
    return done.stdout


def pip(*arguments):
    return run(VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *arguments)


def fingerprint(*parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def read(*names):
    """The text of files under the root, as one string."""
    texts = []
    for name in names:
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            texts.append(name + "\n" + file.read())
    return "\n".join(texts)


def is_done(step, wanted):
    try:
        with open(os.path.join(STAMPS, step), encoding="utf-8") as file:
            return file.read() == wanted
    except OSError:
        return False


def mark_done(step, wanted):
    os.makedirs(STAMPS, exist_ok=True)
    with open(os.path.join(STAMPS, step), "w", encoding="utf-8") as file:
        file.write(wanted)


def make_environment():
    """.venv, made by this very Python; one that is broken or of another version is made anew."""
    wanted = "%d.%d" % sys.version_info[:2]
    if os.path.exists(VENV_PYTHON):
        probe = subprocess.run(
            [VENV_PYTHON, "-c", "import sys, pip; print('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            universal_newlines=True,
        )
        if probe.returncode == 0 and probe.stdout.strip() == wanted:
            return
        say("the environment in .venv is broken or of another Python; making it anew")
    elif os.path.exists(VENV):
        say("the folder .venv holds no environment; making it anew")
    else:
        say("making .venv with Python %s" % wanted)
    if os.path.exists(VENV):
        shutil.rmtree(VENV)
    run(sys.executable, "-m", "venv", VENV)


def core_sources():
    folder = os.path.join("sage_actor", "_core")
    names = sorted(os.listdir(os.path.join(ROOT, folder)))
    return [os.path.join(folder, name) for name in names if name.endswith((".pyx", ".pxd", ".pxi", ".h"))]


def extensions_are_built():
    """Whether every Cython module has a compiled file beside it for the environment's Python."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    return all(os.path.exists(os.path.join(ROOT, name[: -len(".pyx")] + suffix)) for name in core_sources() if name.endswith(".pyx"))


def install_base():
    """The package itself, editable, with its base dependencies; again when its description or a Cython source changed."""
    described = fingerprint(read("pyproject.toml", "setup.py"))
    compiled = fingerprint(read(*core_sources()))
    if not is_done("base", described):
        say("compiling the Cython modules and installing sage_actor with its base dependencies")
        pip("--editable", ROOT)
        mark_done("base", described)
        mark_done("core", compiled)
    elif not is_done("core", compiled) or not extensions_are_built():
        say("compiling the Cython modules again: a source changed")
        tools = subprocess.call([VENV_PYTHON, "-c", "import Cython, setuptools"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if tools == 0:
            run(VENV_PYTHON, "setup.py", "--quiet", "build_ext", "--inplace")
        else:
            pip("--editable", ROOT, "--no-deps")
        mark_done("core", compiled)


def requirements(extra):
    """What pyproject.toml lists for an extra (read by the environment's Python, which has tomllib)."""
    program = (
        "import sys, tomllib\n"
        "project = tomllib.load(open('pyproject.toml', 'rb'))['project']\n"
        "print('\\n'.join(project['optional-dependencies'][sys.argv[1]]))"
    )
    return run(VENV_PYTHON, "-c", program, extra).split("\n")


def install_extra(extra):
    wanted = [line for line in requirements(extra) if line]
    stamp = fingerprint(*wanted)
    if is_done(extra, stamp):
        return
    names = ", ".join(re.split(r"[<>=\[;]", line)[0].strip() for line in wanted)
    say("adding %s: %s" % (extra, names))
    pip(*wanted)
    mark_done(extra, stamp)


def install_redis_server():
    """A Redis server of our own where the machine has none; going on without is possible, and said."""
    if shutil.which("redis-server"):
        return
    if os.environ.get("SAGE_REDIS_URL"):
        return
    try:
        install_extra("redis-server")
    except Refused as error:
        say("no redis-server on PATH, and its wheel could not be installed: what needs Redis will be skipped, and say so")
        say("  %s redis-server   |   %s redis" % (DEBIAN, FEDORA))
        say(str(error).splitlines()[-1])


def install_ray():
    """Ray where it has a wheel; where not, the demo would have nothing to show."""
    install_extra("ray")
    if subprocess.call([VENV_PYTHON, "-c", "import ray"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) != 0:
        version = "%d.%d" % sys.version_info[:2]
        raise Refused("there is no Ray for Python " + version + " on this system: try another, as in make PYTHON=python3.12 demo")


def main():
    parser = argparse.ArgumentParser(description="Build .venv for a target; what is in place already is left alone.")
    parser.add_argument("target", nargs="?", default="demo", choices=sorted(TARGETS))
    parser.add_argument("--backend", default="local", help="for demo: redis also looks for a Redis server, ray adds Ray")
    options = parser.parse_args()
    try:
        preflight()
        make_environment()
        install_base()
        for extra in TARGETS[options.target]:
            install_extra(extra)
        if options.target in ("test", "check", "all") or options.backend.startswith("redis"):
            install_redis_server()
        if options.target == "demo" and options.backend.partition("://")[0] == "ray":
            install_ray()
    except Refused as error:
        print("install: " + str(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninstall: interrupted; the next call goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
