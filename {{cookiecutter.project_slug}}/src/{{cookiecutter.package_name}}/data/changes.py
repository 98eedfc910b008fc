"""Whether the files of a local source changed since they were read, which DVC cannot see."""

from pathlib import Path

from ..provenance import read_json, write_json
from ..settings import Settings

NOTED = "source.json"


def stamps(settings: Settings) -> dict[str, list[int]]:
    """Size and time of change of each file of a local source; of none where it is elsewhere."""
    if "path" not in settings.data.source:
        return {}
    path = Path(settings.data.source["path"])
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = {str(file): file.stat() for file in files if file.is_file()}
    return {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}


def remember(settings: Settings) -> None:
    """Notes how a local source looked when it was read."""
    noted = {settings.data.source.get("path", ""): stamps(settings)}
    write_json(settings.paths.state / NOTED, noted)


def has_changed(settings: Settings) -> bool:
    """Whether a local source, which is still there, looks other than when it was read last."""
    noted, now = settings.paths.state / NOTED, stamps(settings)
    if not now or not noted.is_file():
        return False
    return bool(read_json(noted).get(settings.data.source["path"], now) != now)
