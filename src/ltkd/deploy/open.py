"""A network ready to predict, from a run's folder or from an exported file; the training data is not needed."""

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ltkd.deploy.description import KEY, Description, describe_run, read_description
from ltkd.deploy.quiet import quiet
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.models import load_weights
from ltkd.runs.load import build_network, load_run

Classify = Callable[[np.ndarray], np.ndarray]  # uint8 images to logits


@dataclass(frozen=True)
class DeployedNetwork:
    """`logits_of` is what `classify` asks, once it has seen that the images are whole numbers."""

    about: Description
    logits_of: Classify

    def classify(self, images: np.ndarray) -> np.ndarray:
        """uint8 images [B, channels, H, W] to logits [B, classes] float32. UserError for other numbers."""
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
            kind = f"{type(images).__name__} of {getattr(images, 'dtype', 'no dtype')}"
            raise UserError(f"images: should be a NumPy array of uint8, levels in 0 .. 255 as in the file, got {kind}")
        return self.logits_of(images)


def open_network(path: str | Path, device: torch.device | str = "cpu") -> DeployedNetwork:
    """A run's folder, or a file that export wrote: .safetensors, .pt2 or .onnx.

    ONNX runs on the CPU, on as many threads as torch has; the others run on `device`. UserError, naming the path, where
    it is none of these, damaged, or asks for a library that is not installed.
    """
    path = Path(path)
    openers = {".safetensors": _open_safetensors, ".pt2": _open_torch_export, ".onnx": _open_onnx}
    if path.is_dir():
        run = load_run(path)
        about = describe_run(run)
        return DeployedNetwork(about, classify_with(ServedNetwork(run.model, about), device))
    if not path.is_file():
        raise UserError(f"{path}: not there; name a run's folder or an exported file ({', '.join(openers)})")
    if path.suffix not in openers:
        raise UserError(f"{path}: should be a run's folder or end in {', '.join(openers)}")
    return openers[path.suffix](path, torch.device(device))


def classify_with(network: nn.Module, device: torch.device | str) -> Classify:
    """A module that takes uint8 images, as a function of arrays."""
    network = network.to(device)

    def classify(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images).to(device)).cpu().numpy()

    return classify


def _open_safetensors(path: Path, device: torch.device) -> DeployedNetwork:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged, no safetensors file ({error})") from error
    about = read_description(text, path)
    model = build_network(about.architecture)
    load_weights(model, path)
    return DeployedNetwork(about, classify_with(ServedNetwork(model, about).eval(), device))


def _open_torch_export(path: Path, device: torch.device) -> DeployedNetwork:
    extra = {KEY: ""}
    try:
        with quiet():
            program = torch.export.load(path, extra_files=extra)
    except (RuntimeError, ValueError, KeyError, OSError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise UserError(f"{path}: damaged, or written by a torch that {torch.__version__} cannot read") from error
    text = extra[KEY]
    about = read_description(text.decode() if isinstance(text, bytes) else text, path)
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return DeployedNetwork(about, classify_with(program.module(), device))


def _open_onnx(path: Path, device: torch.device) -> DeployedNetwork:
    session = onnx_session(path, torch.get_num_threads())
    about = read_description(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    name = session.get_inputs()[0].name
    return DeployedNetwork(about, lambda images: session.run(None, {name: images})[0])


def onnx_session(path: Path, threads: int):
    """The file in onnxruntime on the CPU. UserError where that is not installed or the file is damaged."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(f"{path}: needs onnxruntime; pip install 'ltkd[export]' (or onnxruntime)") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors; what it warns of is its own affair
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions share no base class that it exports
        raise UserError(f"{path}: damaged, no ONNX model that onnxruntime reads") from error
