"""The files of a run. Their names are spelled here and nowhere else. Knows no torch, so that it starts at once."""

from pathlib import Path


class RunFiles:
    """The paths of a run's files, below the folder of a student or teacher; none of them need be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder = Path(folder)
        self.config = folder / "config.json"  # settings of the network
        self.manifest = folder / "manifest.json"  # the data that it is trained on
        self.status = folder / "status.json"  # running, finished, interrupted or failed, and why
        self.log = folder / "log.txt"  # all messages
        self.console = folder / "console.txt"  # all that a sweep's process has written, the last words of a crash too
        self.lock = folder / "lock"
        self.metrics = folder / "metrics.jsonl"  # a line for each epoch
        self.checkpoint = folder / "last.ckpt"  # state to resume from; goes when the result is there
        self.sessions = folder / "sessions.json"  # circumstances of the training so far; goes with the checkpoint
        self.selected = folder / "selected.safetensors"  # weights of the epoch that the validation split selects
        self.weights = folder / "weights.safetensors"  # weights after the last epoch
        self.result = folder / "result.json"  # written last: where it is, all of them are
        self.swag = folder / "swag.ckpt"  # moments of the weights, of a teacher that is a SWAG posterior
        self.logits = folder / "logits"  # folder of a teacher's cached logits

    @property
    def retraining(self) -> "RunFiles":
        """The files of the second stage of a two-stage training."""
        return RunFiles(self.folder / "retraining")

    @classmethod
    def below(cls, folder: Path) -> list["RunFiles"]:
        """Find the runs below a folder, begun or finished, sorted; not in hidden folders, where trial runs are."""
        names = cls(folder)
        folders = {path.parent for name in (names.status, names.result) for path in Path(folder).rglob(name.name)}
        visible = (path for path in folders if not any(part.startswith(".") for part in path.relative_to(folder).parts))
        return [cls(path) for path in sorted(visible)]
