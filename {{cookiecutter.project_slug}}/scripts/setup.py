"""python3 scripts/setup.py: an environment with all that the project needs, then a git repository,
once.

    VENV=folder        where the environment lies (.venv)
    TORCH=cpu          PyTorch's build: cpu, or cuda or auto for this machine's GPU; remembered
    PYTHON=python3.12  (make's own) which Python it is of; remembered
    LOCK=none          newest versions that pyproject.toml allows, not those of the lock file
    ... setup.py lock  write requirements.lock anew

Standard library only. What pip is configured to use here (indexes, folders of wheels, certificates)
uv uses as well.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - this line is for those who have an older one
    sys.exit(
        f"error: Python 3.11 or newer is needed, not {sys.version.split()[0]}; "
        "try `make setup PYTHON=python3.12`"
    )

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
EXTRAS = ("train", "dev")
LOCKED = os.environ.get("LOCK", "") != "none"
# pip's options and uv's variables for the same, with what separates several values there.
UV_NAMES = {
    "find-links": ("UV_FIND_LINKS", ","),
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "no-index": ("UV_NO_INDEX", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
}
# What would lead the installation past the environment; pip.conf may ask for `user` as well.
PAST = "PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON UV_SYSTEM_PYTHON UV_PYTHON PYTHONPATH PYTHONHOME"
for _name in PAST.split():
    os.environ.pop(_name, None)
os.environ["PIP_USER"] = "0"


def say(line: str) -> None:
    print(line, flush=True)


def check_tools() -> None:
    """Stops with one line, before anything is downloaded, when a tool is missing."""
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        sys.exit(
            "error: this Python has no venv: install it (Debian: apt install python3-venv) "
            "or use another Python"
        )
    if shutil.which("git") is None:
        sys.exit("error: git is needed and was not found: install it first")
    odd = re.search('[%?{}"]|' + os.pathsep, str(ROOT))
    if odd:
        sys.exit(f"error: some tools cannot work below a path with {odd[0]!r}: move the project")
    if TORCH not in ("cpu", "cuda", "auto"):
        sys.exit(f"error: TORCH={TORCH} is unknown: set cpu, cuda or auto")


def folder() -> Path:
    return ROOT / os.environ.get("VENV", ".venv")


def torch_build() -> str:
    """What is asked for now, or what this environment was made with."""
    stamp = folder() / "setup.stamp"
    kept = stamp.read_text(encoding="utf-8").split() if stamp.is_file() else []
    return os.environ.get("TORCH") or (kept[1] if len(kept) > 1 else "cpu")


TORCH = torch_build()


def python(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(
    *command: str | Path, quiet: bool = False, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the project's root; its output is shown, or kept where `quiet`."""
    return subprocess.run(
        [str(c) for c in command], cwd=ROOT, env=env, text=True, capture_output=quiet, check=False
    )


def show(command: list[str | Path], env: dict[str, str]) -> int:
    """Runs uv and shows what it says, without the long list of what it has installed; returns the
    exit code.
    """
    with subprocess.Popen(
        [str(c) for c in command],
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout or ():
            if not line.startswith((" + ", " - ", " ~ ")):
                say(line.rstrip())
    return process.returncode


def project() -> dict[str, object]:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {"project": content["project"], "build": content["build-system"]}


def fingerprint() -> str:
    """What the environment depends on: other settings of pyproject.toml do not ask for a new
    installation.
    """
    lock = LOCK.read_text(encoding="utf-8") if LOCKED and LOCK.exists() else ""
    parts = [json.dumps(project(), sort_keys=True), lock, TORCH, sys.version, str(ROOT)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def pip_settings(venv: Path) -> dict[str, str]:
    """pip's configuration from files and environment; a later level replaces an earlier one, as it
    does for pip.
    """
    lines = run(python(venv), "-m", "pip", "config", "list", quiet=True).stdout.splitlines()
    found: dict[str, str] = {}
    for level in ("global", "install", ":env:"):
        for line in lines:
            key, _, value = line.partition("=")
            if key.startswith(level + ".") and ast.literal_eval(value):
                found[key[len(level) + 1 :]] = ast.literal_eval(value)
    return found


def uv_environment(venv: Path) -> dict[str, str]:
    """Environment in which uv finds what pip would find; uv's own variables win."""
    env = {**os.environ, "VIRTUAL_ENV": str(venv)}
    settings = pip_settings(venv)
    for option, (name, separator) in UV_NAMES.items():
        if settings.get(option):
            env.setdefault(name, separator.join(settings[option].split()))
    if (
        "extra-index-url" in settings
    ):  # pip takes the best version of all indexes, uv the first index that has any
        env.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return env


def requirement(name: str) -> str | None:
    """The project's requirement for one library, such as torch>=2.13."""
    match = re.search(rf'"({name}(?![\w-])[^"]*)"', json.dumps(project()))
    return match[1] if match else None


def local_torch(venv: Path) -> str | None:
    """`torch==version` where pip's own configuration offers a wheel of it on this machine."""
    if "find-links" not in pip_settings(venv) or TORCH != "cpu":
        return None
    options = [
        "--dry-run",
        "--no-index",
        "--no-deps",
        "--ignore-installed",
        "--quiet",
        "--report=-",
    ]
    found = run(
        python(venv), "-m", "pip", "install", *options, requirement("torch") or "torch", quiet=True
    )
    if found.returncode != 0:
        return None
    return f"torch=={json.loads(found.stdout)['install'][0]['metadata']['version']}"


def torch_arguments(venv: Path, uv: list[str | Path], env: dict[str, str]) -> list[str]:
    """What is asked for beside the project so that the wanted build of PyTorch comes."""
    if requirement("torch") is None:
        return []
    local = local_torch(venv)
    if local:
        return [local]
    if sys.platform != "linux":
        return []  # there the default index has the right build
    backend = "--torch-backend=" + ("cpu" if TORCH == "cpu" else "auto")
    probe = [*uv, "pip", "install", "--dry-run", "--no-deps", "torch", backend]
    if uv and run(*probe, quiet=True, env=env).returncode == 0:
        return [backend]
    say(
        "PyTorch's own index cannot be reached: taking the default one, "
        "whose build for GPUs is several GB to load."
    )
    return []


def constraints(venv: Path, torch: list[str]) -> list[str]:
    """The locked versions as arguments; a torch of this machine goes before the locked one."""
    if not LOCKED or not LOCK.exists():
        return []
    own = any(argument.startswith("torch==") for argument in torch)
    lines = [
        line
        for line in LOCK.read_text(encoding="utf-8").splitlines()
        if not (own and line.startswith("torch=="))
    ]
    path = venv / "constraints.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["--constraint", str(path)]


def install(venv: Path) -> None:
    """Installs the project, editable, with its extras: by uv, and by pip where uv cannot do it."""
    pip: list[str | Path] = [python(venv), "-m", "pip"]
    run(*pip, "install", "--quiet", "uv", quiet=True)
    uv: list[str | Path] = [python(venv), "-m", "uv"]
    has_uv = run(*uv, "--version", quiet=True).returncode == 0
    env = uv_environment(venv)
    torch = torch_arguments(venv, uv if has_uv else [], env)
    common = ["--editable", f".[{','.join(EXTRAS)}]", *constraints(venv, torch)]
    if has_uv and show([*uv, "pip", "install", "--compile-bytecode", *common, *torch], env) == 0:
        return
    say("uv could not install everything: trying once more with pip.")
    if run(*pip, "install", *common, *(t for t in torch if not t.startswith("--"))).returncode != 0:
        sys.exit(
            "error: the installation failed; the lines above say why. "
            "Call it again after mending that."
        )


def is_of_another(venv: Path) -> bool:
    """Whether an environment is of another Python than this one."""
    version = run(python(venv), "-c", "import sys; print(sys.version)", quiet=True)
    return version.stdout.strip() != sys.version


def make_environment() -> None:
    """Makes or renews the environment where what it depends on has changed."""
    venv = folder()
    stamp, wanted = venv / "setup.stamp", f"{fingerprint()} {TORCH}"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted and python(venv).exists():
        return
    say(f"Setting up {venv.name} (a few minutes the first time) ...")
    if not python(venv).exists() or is_of_another(venv):
        venv_command = run(sys.executable, "-m", "venv", "--clear", venv)
        if venv_command.returncode != 0:
            sys.exit(f"error: no virtual environment could be made in {venv}")
    install(venv)
    stamp.write_text(wanted, encoding="utf-8")
    say("The environment is ready.")


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("git", *arguments, quiet=True)


def make_repository() -> None:
    """DVC and the records need git: a repository and its first commit, where there is none."""
    inside = git("rev-parse", "--show-toplevel")
    has_one = any((above / ".git").exists() for above in (ROOT, *ROOT.parents))
    if has_one and inside.returncode != 0:
        say(f"git fails, so that no run will name its commit: {' '.join(inside.stderr.split())}")
        return
    if inside.returncode != 0 or git("check-ignore", "--quiet", str(ROOT)).returncode == 0:
        made = git("-c", "init.defaultBranch=main", "init", "--quiet")
        if made.returncode != 0:
            sys.exit(f"error: no git repository could be made here: {made.stderr.strip()}")
        say("Made a git repository.")
    elif (
        Path(inside.stdout.strip()).resolve() != ROOT
        or git("rev-parse", "--verify", "HEAD").returncode == 0
    ):
        return
    if git("-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT").returncode != 0:
        say(
            "git does not know you yet, so nothing is committed. "
            "Type, with your own name and address:"
        )
        say(
            '    git config --global user.name "Your Name" '
            "&& git config --global user.email you@example.com"
        )
        say('    git add --all && git commit --message "The project as generated"')
        return
    git("add", "--all")
    options = ["--quiet", "--no-verify", "--message=The project as generated"]
    commit = git("-c", "commit.gpgsign=false", "commit", *options)
    say(
        "Committed the project as generated."
        if commit.returncode == 0
        else f"git: {commit.stderr.strip()}"
    )


def lock() -> None:
    """Writes the newest versions that pyproject.toml allows, for every Python and system, into
    requirements.lock.
    """
    make_environment()
    env = uv_environment(folder())
    env.pop("UV_FIND_LINKS", None)  # one machine's wheels are not everyone's
    extras = [f"--extra={name}" for name in EXTRAS]
    every = "--universal --python-version=3.11 --fork-strategy=fewest --upgrade"
    plain = f"--no-annotate --no-header --quiet --output-file={LOCK.name}"
    command = ["-m", "uv", "pip", "compile", "pyproject.toml", *extras, *every.split()]
    sys.exit(run(python(folder()), *command, *plain.split(), env=env).returncode)


def main() -> None:
    check_tools()
    if sys.argv[1:] == ["lock"]:
        lock()
    make_environment()
    make_repository()


if __name__ == "__main__":
    main()
