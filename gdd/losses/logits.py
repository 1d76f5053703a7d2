"""Losses between the logits of two batches or two networks."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def standardize(logits: Tensor, eps: float = 1e-7, dim: int = 1) -> Tensor:
    """Return (x - mean) / (std + eps) of logits (B, K) per sample over the classes (Sun et al. 2024).

    The standard deviation is the biased one. A sample of equal logits maps to zeros, with zero gradient:
    the square root's infinite slope at 0 is kept out of the graph. It is layer normalisation without weights, but for
    where eps stands; with `dim` 0, over the batch, it is batch normalisation without weights.
    """
    centred = logits - logits.mean(dim=dim, keepdim=True)
    variance = centred.square().mean(dim=dim, keepdim=True)
    # Not `variance == 0`: the mean of ten times 0.1 rounds, and its error would be blown up to unit scale.
    constant = logits.amax(dim=dim, keepdim=True) == logits.amin(dim=dim, keepdim=True)
    std = torch.where(constant, torch.ones_like(variance), variance).sqrt()
    return torch.where(constant, torch.zeros_like(centred), centred / (std + eps))


def classified(logits: Tensor, labels: Tensor | int) -> Tensor:
    """Return which rows of logits (B, K) are highest at their label, (B,) bool; `labels` are (B,), or one for all.

    A row that is not all finite is not: the argmax of nan is a class like any other.
    """
    return (logits.argmax(1) == labels) & logits.isfinite().all(1)


def kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    """Return mean_b KL(softmax(p) || softmax(q)) of logits (B, K)."""
    p, q = F.log_softmax(p_logits, dim=1), F.log_softmax(q_logits, dim=1)
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def skd(
    real_logits: Tensor,
    synthetic_logits: Tensor,
    tau: float,
    tau_mode: Literal["divide", "multiply"] = "divide",
    standardized: bool = True,
    over: Literal["classes", "batch"] = "classes",
) -> Tensor:
    """Return tau^2 * mean_b KL(d_real || d_synthetic), d = softmax(Z / tau) or softmax(Z * tau) (Li et al. 2025).

    The real side is a constant: no gradient flows into it.

    Args:
        real_logits: (B, K).
        synthetic_logits: (B, K), row i of the same class as row i of `real_logits`.
        tau: above 0.
        tau_mode: `divide` is what the text describes, `multiply` what its formula prints.
        standardized: whether Z is `standardize(logits)` or the logits themselves.
        over: what logits are standardized over.
    """
    scale = tau if tau_mode == "multiply" else 1 / tau
    real, synthetic = real_logits.detach(), synthetic_logits
    if standardized:
        dim = 1 if over == "classes" else 0
        real, synthetic = standardize(real, dim=dim), standardize(synthetic, dim=dim)
    return tau**2 * kl(real * scale, synthetic * scale)


def paired(real_logits: Tensor, synthetic_logits: Tensor, labels: Tensor) -> Tensor:
    """Return the real logits (B, K) in the order in which the synthetic ones (B, K) are compared with them.

    `labels` (B,) are the classes of the rows of either.

    Each synthetic row gets one of its class and each real row is used once: the assignment with the smallest sum of
    squared distances between standardized logits. Without pairing, samples of a class collapse to its mean; pairing
    avoids that.
    """
    from scipy.optimize import linear_sum_assignment  # takes half a second to import

    distances = torch.cdist(standardize(synthetic_logits), standardize(real_logits)).square()
    distances = distances.cpu().nan_to_num()  # that a run has diverged is for its loss to tell
    order, classes = torch.arange(len(labels)), labels.cpu()
    for label in classes.unique():
        rows = (classes == label).nonzero().flatten()
        _, columns = linear_sum_assignment(distances[rows][:, rows].numpy())
        order[rows] = rows[torch.from_numpy(columns)]
    return real_logits[order.to(real_logits.device)]


def log_probability_mse(real_logits: Tensor, synthetic_logits: Tensor) -> Tensor:
    """Return the mean over B*K of the squared difference of log-probabilities (DiM, logit matching)."""
    return F.mse_loss(F.log_softmax(synthetic_logits, dim=1), F.log_softmax(real_logits.detach(), dim=1))


def distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Return alpha * T^2 * KL(teacher / T || student / T) + (1 - alpha) * CE (Zhou et al. 2024, eq. 1).

    Args:
        student_logits: (B, K).
        teacher_logits: (B, K), a constant.
        labels: (B,) classes, or (B, K) probabilities.
        alpha: in [0, 1].
        temperature: T, above 0; it really softens both sides.
    """
    divergence = kl(teacher_logits.detach() / temperature, student_logits / temperature)
    return alpha * temperature**2 * divergence + (1 - alpha) * F.cross_entropy(student_logits, labels)


def released_distillation(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """Return alpha * T^3 * KL(student || teacher) + (1 - alpha) * CE, as the released code of Zhou et al. computed it.

    It is that of their commit 3d1dbb5, the closest to their logged sweeps over T. The divergence runs in the reverse
    direction of eq. 1 (`distillation`), and T softens nothing: it is a weight, so T = 0 leaves (1 - alpha) * CE, the
    halved baseline of their table 4. The arguments are those of `distillation`, but T may be 0.
    """
    divergence = kl(student_logits, teacher_logits.detach())
    return alpha * temperature**3 * divergence + (1 - alpha) * F.cross_entropy(student_logits, labels)
