"""Files for watching devices with Prometheus and Grafana: a configuration, alert rules with their tests, a dashboard.

Refuses to write over a file that says something else: somebody may have put their own numbers there."""

from pathlib import Path

from edgekit_runtime.errors import EdgeKitError

FOLDER = Path(__file__).with_name("prometheus")
NAMES = ("prometheus.yml", "alerts.yml", "alerts.test.yml", "dashboard.json")


def write_monitoring_files(folder: Path) -> list[Path]:
    """Put them into `folder`, which is made where it is not there; gives their paths.

    Raises:
        EdgeKitError: one of them is there and says something else, or it cannot be written.
    """
    made = {folder / name: (FOLDER / name).read_bytes() for name in NAMES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in made.items():
            if path.exists() and path.read_bytes() != content:
                raise EdgeKitError(f"{path} is there and says something else", hint="name another folder")
        for path, content in made.items():
            path.write_bytes(content)
    except OSError as error:
        raise EdgeKitError(f"{folder}: {error.strerror}", hint="name a folder that you may write to") from error
    return list(made)
