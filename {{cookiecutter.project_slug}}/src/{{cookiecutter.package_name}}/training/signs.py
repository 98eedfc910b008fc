"""T5: what the numbers of a training say about it, in plain words: what each one means, and what to
try.

Many numbers move when one thing breaks: of the signs in CHAIN, which runs from causes to what
follows from them, only the first is named. Put it right, and look again.
"""

from statistics import median

# What the number means, and what to try; the limits are those of the same name in configs/health.
SIGNS = {
    "not_finite": (
        "steps whose loss or gradient was NaN or infinite, where gradients before had their usual size",
        "`train debug=anomaly`, which names the operation: a log or root of 0, a division by 0, NaN in the inputs",
    ),
    "exploding_gradients": (
        "mean gradient norm in an epoch, before clipping: a few steep places decide where the weights go",
        "smaller initial weights, normalised inputs or layers, trainer.gradient_clip_val=1",
    ),
    "learning_rate_high": (
        "training loss above its start and above a constant answer's, in units of the latter: steps overshoot",
        "a tenth of optimizer.lr, or a longer warm-up",
    ),
    "dead_units": (
        "share of the units of the worst layer that are off for every row of a batch: they cannot learn",
        "initial biases of zero, SiLU or GELU instead of ReLU, a lower optimizer.lr",
    ),
    "vanishing_gradients": (
        "gradient of the first layer as a share of the last one's: early layers do not learn",
        "ReLU or SiLU instead of sigmoid or tanh, normalisation layers, residual connections, fewer layers",
    ),
    "learning_rate_low": (
        "most that the last layer moved in an epoch, as a share of its size, while the loss hardly fell",
        "ten times optimizer.lr",
    ),
    "loss_spike": (
        "share of what training had gained that one epoch lost again",
        "a lower optimizer.lr, trainer.gradient_clip_val=1, a look at the rows of that epoch",
    ),
    "underfitting": (
        "error on the training rows at the end, as a share of a constant answer's",
        "a larger network, less regularisation, a higher optimizer.lr, inputs that say more",
    ),
    "unfinished": (
        "fall of the validation loss in each of the last epochs, as a share of a constant answer's",
        "more trainer.max_epochs",
    ),
    "overfitting": (
        "validation loss above its best, in losses of a constant answer, while the training loss fell",
        "more data or augmentation, dropout, weight decay, a smaller network; the best epoch's weights are kept",
    ),
    "slower": (
        "rows per second in the last epochs, as a share of the fastest ones'",
        "without another program on this machine; look for a hot device, data that are no longer cached",
    ),
    "waiting_for_data": (
        "share of the time that training waits for batches",
        "more training.workers, a faster disk",
    ),
    "memory_growing": (
        "growth of the memory in use since the third epoch, as a share",
        "a look for tensors kept from step to step: store `.item()` or `.detach()` of them",
    ),
}
CHAIN = list(SIGNS)[:9]
DESTROYED = CHAIN[:3]  # after these, nothing else that was measured tells anything
BELOW = {
    "vanishing_gradients",
    "learning_rate_low",
    "slower",
}  # named below their limit, the others above it
AT_THE_END = {"underfitting", "unfinished"}  # true of any training that has only begun
SECONDS = 10.0  # the speed of three epochs shorter than that tells of other programs

Epoch = dict[str, float]


def numbers(history: list[Epoch], unit: float) -> dict[str, float | None]:
    """The number of each sign, None where it could not be measured.

    `history` has the loss and the gradient norm of the first step, then what was measured in each
    epoch; `unit` is the loss of a constant answer.
    """

    def series(key: str) -> list[float]:
        return [epoch[key] for epoch in history if key in epoch]

    loss, val = ([value / unit for value in series(key)] for key in ("loss", "val"))
    seconds, memory, moved, last = (
        series("seconds"),
        series("memory"),
        series("moved"),
        (history or [{}])[-1],
    )
    long = sum(seconds[-3:]) > SECONDS
    return {
        "not_finite": last.get("broken", 0.0),
        "exploding_gradients": max(series("gradient")[1:], default=None),
        "learning_rate_high": max(loss[1:]) - max(loss[0], 1.0) if len(loss) > 1 else None,
        "dead_units": last.get("dead"),
        "vanishing_gradients": last.get("first"),
        "learning_rate_low": max(moved) if len(moved) > 2 else None,  # it may have to warm up
        "loss_spike": _lost(loss[1:]) if len(loss) > 1 else None,
        "underfitting": last["error"] if "error" in last else loss[-1] if len(loss) > 1 else None,
        "unfinished": _falling(val) if len(val) > 1 else None,
        "overfitting": _risen(loss[1:], val) if val else None,
        "slower": _fastest(seconds) / median(seconds[-3:]) if long else None,
        "waiting_for_data": last.get("wait") if long else None,
        "memory_growing": memory[-1] / memory[2] - 1 if len(memory) > 3 else None,
    }


def beyond(
    found: dict[str, float | None], limits: dict[str, float], first_norm: float, ended: bool
) -> list[str]:
    """The signs beyond their limits, without those that follow from one before them; `first_norm`
    is of a gradient.
    """
    far = [
        s
        for s, n in found.items()
        if n is not None and (n < limits[s] if s in BELOW else n > limits[s])
    ]
    signs = [sign for sign in far if ended or sign not in AT_THE_END]
    if "learning_rate_high" in signs and first_norm < limits["exploding_gradients"]:
        signs = [
            sign for sign in signs if sign != "exploding_gradients"
        ]  # gradients were small until steps were taken
    if (found["underfitting"] or 0.0) < 0.5:
        signs = [sign for sign in signs if sign != "learning_rate_low"]  # there was little to learn
    cause = [sign for sign in CHAIN if sign in signs][:1]
    return (
        cause
        if set(cause) & set(DESTROYED)
        else cause + [sign for sign in signs if sign not in CHAIN]
    )


def _lost(loss: list[float]) -> float:
    """Largest rise of the loss over its best before, as a share of the fall until then; 0 where it
    hardly fell.
    """
    best = [min(loss[: i + 1]) for i in range(len(loss))]
    falls = [(loss[0] - low, after - low) for low, after in zip(best, loss[1:], strict=False)]
    return max((rise / fall for fall, rise in falls if fall > 0.1), default=0.0)


def _risen(loss: list[float], val: list[float]) -> float:
    """How far the last three validation losses all lie above the best; 0 where the training loss
    did not fall since.
    """
    return min(val[-3:]) - min(val) if loss[-1] < loss[val.index(min(val))] else 0.0


def _falling(val: list[float]) -> float:
    """How far the last epochs, three at most, lowered the best validation loss, each."""
    last = min(3, len(val) - 1)
    return (min(val[:-last]) - min(val)) / last


def _fastest(seconds: list[float]) -> float:
    """Median time of the fastest three epochs in a row."""
    return min(median(seconds[i : i + 3]) for i in range(max(1, len(seconds) - 2)))
