"""Files of a network for other programs: safetensors, torch.export, ONNX, and ONNX in whole numbers of eight bits."""

import io
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch.export import Dim, ExportedProgram

from ltkd.deploy.description import KEY, Description
from ltkd.deploy.quiet import quiet
from ltkd.deploy.served import ServedNetwork
from ltkd.errors import UserError
from ltkd.files import write_bytes

STEM = "model"
INPUT, OUTPUT = "images", "logits"
QUANTISED = ["Conv", "Gemm", "MatMul"]  # where they have weights: the image is scaled and normalised as before
CALIBRATION_BATCH = 32


def write_safetensors(folder: Path, network: ServedNetwork, about: Description) -> Path:
    """model.safetensors, with the description in its metadata."""
    tensors = {name: tensor.contiguous().clone() for name, tensor in network.network.state_dict().items()}
    path = folder / f"{STEM}.safetensors"
    write_bytes(path, save(tensors, {KEY: about.to_json()}))
    return path


def export_program(network: ServedNetwork, about: Description) -> ExportedProgram:
    """The network as a torch.export program that takes any number of images of any size.

    UserError where torch cannot write down the network's code.
    """
    # two images of two unequal sides: none of the numbers is taken for a constant
    images = torch.zeros(2, about.channels, about.image_size + 3, about.image_size + 5, dtype=torch.uint8)
    anything = {INPUT: {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}}
    try:
        with quiet():
            return torch.export.export(network, (images,), dynamic_shapes=anything)
    except Exception as error:  # whatever a foreign network's code raises
        name = about.architecture["name"]
        raise UserError(f"{name}: torch.export cannot write this network ({str(error).splitlines()[0]})") from error


def write_torch_export(folder: Path, program: ExportedProgram, about: Description) -> Path:
    """model.pt2, for torch.export.load without this project."""
    content, path = io.BytesIO(), folder / f"{STEM}.pt2"
    torch.export.save(program, content, extra_files={KEY: about.to_json()})
    write_bytes(path, content.getvalue())
    return path


def write_onnx(folder: Path, program: ExportedProgram, about: Description) -> Path:
    """model.onnx: uint8 images [batch, channels, height, width] to float logits [batch, classes].

    UserError where the libraries for it are not installed.
    """
    require_onnx()
    with quiet():
        model = torch.onnx.export(
            program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
        ).model_proto
    path = folder / f"{STEM}.onnx"
    write_bytes(path, _with_description(model, about))
    return path


def write_int8(folder: Path, onnx_file: Path, about: Description, images: np.ndarray) -> Path:
    """model-int8.onnx: weights per channel and activations in eight bits, by onnxruntime's static quantisation.

    images: uint8 [N, channels, size, size] of the training part; the ranges of the activations are taken from them.
    """
    require_onnx()
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            starts = range(0, len(images), CALIBRATION_BATCH)
            self.batches = iter([{INPUT: images[start : start + CALIBRATION_BATCH]} for start in starts])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory(dir=folder) as temporary, quiet():
        prepared, written = Path(temporary) / "prepared.onnx", Path(temporary) / "int8.onnx"
        quant_pre_process(str(onnx_file), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        weights = {tensor.name for tensor in graph.initializer}
        without = [node.name for node in graph.node if node.op_type == "MatMul" and not weights & set(node.input)]
        quantize_static(
            str(prepared), str(written), Images(), quant_format=QuantFormat.QDQ, op_types_to_quantize=QUANTISED,
            nodes_to_exclude=without, per_channel=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )  # fmt: skip
        model = onnx.load(written)
    path = folder / f"{STEM}-int8.onnx"
    write_bytes(path, _with_description(model, about))
    return path


def require_onnx() -> None:
    """UserError that says what to install where onnx, onnxscript or onnxruntime is missing."""
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(library)
        except ImportError as error:
            hint = (
                "pip install 'ltkd[export]' (in a checkout: '.[export]'), or leave it out with formats=safetensors,pt2"
            )
            raise UserError(f"formats: onnx needs the library {library}; {hint}") from error


def _with_description(model, about: Description) -> bytes:
    import onnx

    onnx.helper.set_model_props(model, {KEY: about.to_json()})
    model.producer_name = "ltkd"
    onnx.checker.check_model(model)
    return model.SerializeToString()
