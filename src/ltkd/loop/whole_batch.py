"""Puts the batch together again where several processes share it, for objectives that read it as a whole.

Every process then computes the same objective of all images, on what all processes' networks said of their own, and
counts it as its share 1 / size. The gradient of an output is size times that, which makes it whole again; the
gradients of the method's own parameters are whole when they are summed over the processes. So one rule, the sum of
gradients, serves networks and methods alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ltkd.data import Batch
from ltkd.errors import UserError
from ltkd.methods import Method
from ltkd.models.output import ModelOutput
from ltkd.ranks import Ranks, Share


class _Gather(torch.autograd.Function):
    """Tensors [own rows, ...] of each process to those of the whole batch, bit for bit, in one message."""

    @staticmethod
    def forward(ctx: Any, ranks: Ranks, share: Share, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.ranks, ctx.share, ctx.sizes = ranks, share, [len(tensor) for tensor in tensors]
        ctx.set_materialize_grads(False)
        columns = [_as_bytes(tensor[: share.counted]) for tensor in tensors]
        everything = ranks.gather_bytes(
            torch.cat(columns, dim=1), [rank_share.counted for rank_share in ranks.shares(share.total)]
        )
        parts = everything.split([column.shape[1] for column in columns], dim=1)
        whole = tuple(
            part.clone(memory_format=torch.contiguous_format).view(tensor.dtype).view(share.total, *tensor.shape[1:])
            for part, tensor in zip(parts, tensors, strict=True)
        )
        ctx.mark_non_differentiable(*(tensor for tensor in whole if not tensor.is_floating_point()))
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ranks, share = ctx.ranks, ctx.share
        results: list[Tensor | None] = []
        for gradient, size in zip(gradients, ctx.sizes, strict=True):
            if gradient is None:
                results.append(None)
                continue
            result = gradient.new_zeros(size, *gradient.shape[1:])
            if share.counted:
                result.copy_(gradient[share.rows]).mul_(ranks.size)
            results.append(result)
        return None, None, *results


def _as_bytes(tensor: Tensor) -> Tensor:
    """[B, ...] as uint8 [B, bytes of a row]."""
    tensor = tensor.detach().contiguous()
    flat = tensor.flatten(1) if tensor.ndim > 1 else tensor.unsqueeze(1)
    return flat.view(torch.uint8)


def gather(ranks: Ranks, share: Share, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Gather each tensor [own rows, ...] to that of all rows; None stays None. Gradients flow back to the own rows."""
    present = [tensor for tensor in tensors if tensor is not None]
    whole = iter(_Gather.apply(ranks, share, *present))
    return [None if tensor is None else next(whole) for tensor in tensors]


def check_whole_batch(method: Method) -> None:
    """Raise a UserError where the task loss reads the batch as a whole and the method cannot be given that."""
    if (
        method.task_loss.reads_batch
        and not method.reads_batch
        and (method.needs.input_gradients or method.needs.networks)
    ):
        name = type(method.task_loss).__name__
        raise UserError(
            f"student.task_loss: {name} is a mean by weights of the whole batch, which several processes share, and "
            f"method {method.name} computes gradients of its own images; choose another loss or start one process"
        )


def gather_step(
    ranks: Ranks, method: Method, student: ModelOutput, teacher: ModelOutput | None, batch: Batch
) -> tuple[ModelOutput, ModelOutput | None, Batch]:
    """Gather of a step what `method` reads: outputs, labels and logits. batch.second_view has all images already.

    `batch.shares` has one, of the own rows. The images themselves come along where the method mixes them.
    """
    (share,), needs = batch.shares, method.needs
    of_student = [student.logits, student.embedding, *_maps(student, needs.stages)]
    of_teacher = []
    if teacher is not None:
        of_teacher = [teacher.logits, teacher.embedding if needs.embedding else None, *_maps(teacher, needs.stages)]
    of_batch = [
        batch.labels,
        batch.index,
        batch.partner_labels,
        batch.teacher_logits,
        batch.images if needs.mixed_images else None,
        *batch.extra_logits,
    ]
    whole = iter(gather(ranks, share, [*of_student, *of_teacher, *of_batch]))
    student = _output(student, whole, needs.stages)
    teacher = None if teacher is None else _output(teacher, whole, needs.stages)
    labels, index, partner_labels, teacher_logits, images, *extra_logits = whole
    batch = replace(
        batch,
        images=batch.images if images is None else images,
        labels=labels,
        index=index,
        partner_labels=partner_labels,
        teacher_logits=teacher_logits,
        extra_logits=tuple(extra_logits),
    )
    return student, teacher, batch


def _maps(output: ModelOutput, wanted: bool) -> list[Tensor]:
    return [*(output.stages or []), *(output.preact_stages or [])] if wanted else []


def _output(own_output: ModelOutput, whole: Any, with_maps: bool) -> ModelOutput:
    """Take the whole tensors of an output, as `gather_step` lists them."""
    logits, embedding = next(whole), next(whole)
    stages, before = (
        [next(whole) for _ in maps] if with_maps and maps is not None else None
        for maps in (own_output.stages, own_output.preact_stages)
    )
    return ModelOutput(logits, stages, before, embedding)


def on_all_processes(ranks: Ranks, network: Callable[..., ModelOutput]) -> Callable[..., ModelOutput]:
    """`network` as a function of all images of a batch, of which each process runs its share; for `Networks`."""
    if ranks.alone:
        return network

    def run(images: Tensor, features: bool = False) -> ModelOutput:
        share = ranks.share(len(images))
        with ranks.own_random(images.device):
            output = network(images[share.rows], features=features)
        whole = iter(gather(ranks, share, [output.logits, output.embedding, *_maps(output, features)]))
        return _output(output, whole, features)

    return run
