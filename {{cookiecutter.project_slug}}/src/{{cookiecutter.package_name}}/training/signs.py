"""T5: the signs of bad health, from what `health.py` measured in each epoch: what the number of
each means, and which of them are named.
"""

import math

import pandas as pd

# What the number of a sign means, and what to try; `health` in the configuration has the limits.
SIGNS = {
    "not_finite": (
        "a loss or weight that is NaN or infinite: training ends",
        "a tenth of optimizer.lr, trainer.gradient_clip_val=1, or `train debug=anomaly`, which"
        " names the operation: a log or root of 0, a division by 0, NaN in the inputs",
    ),
    "dropout_high": (
        "most that a dropout layer drops, as a share, while little was learned: what it leaves of"
        " the network cannot do the task",
        "a lower model.dropout",
    ),
    "weights_shrink": (
        "size of all weights, as a share of that at the start, while little was learned: weight"
        " decay pulls harder than the loss",
        "a hundredth of optimizer.weight_decay",
    ),
    "learning_rate_high": (
        "rise of the training loss above its start, as a share of that or of a constant answer's:"
        " steps overshoot",
        "a tenth of optimizer.lr, or a longer warm-up",
    ),
    "exploding_gradients": (
        "mean gradient norm in an epoch, before clipping: a few steep places decide where the"
        " weights go",
        "smaller initial weights, normalised inputs or layers, trainer.gradient_clip_val=1",
    ),
    "dead_units": (
        "share of the units of the worst layer that are off for every row of a batch: they cannot"
        " learn",
        "initial biases of zero, SiLU or GELU instead of ReLU, a lower optimizer.lr",
    ),
    "vanishing_gradients": (
        "gradient of the first layer as a share of the last one's: early layers do not learn",
        "ReLU or SiLU instead of sigmoid or tanh, normalisation layers, residual connections,"
        " fewer layers",
    ),
    "learning_rate_low": (
        "most that the last layer moved in an epoch, as a share of its size, while the loss hardly"
        " fell",
        "ten times optimizer.lr",
    ),
    "loss_spike": (
        "share of what training had gained that one epoch lost again",
        "a lower optimizer.lr, trainer.gradient_clip_val=1, a look at the rows of that epoch",
    ),
    "underfitting": (
        "error on the training rows at the end, as a share of a constant answer's",
        "a larger network, less regularisation, a higher optimizer.lr, inputs that say more; labels"
        " that are wrong look the same: the numbers cannot tell which",
    ),
    "overfitting": (
        "validation loss above its best, in losses of a constant answer, while the training loss"
        " fell",
        "more data or augmentation, dropout, weight decay, a smaller network; the best epoch's"
        " weights are kept; wrong labels, learned by heart, look the same",
    ),
    "slower": (
        "rows per second in the last epochs, as a share of the fastest ones'",
        "without another program on this machine; look for a hot device, data that are no longer"
        " cached",
    ),
    "memory_growing": (
        "growth of the memory in use since the third epoch, as a share",
        "a look for tensors kept from step to step: store `.item()` or `.detach()` of them",
    ),
}
# Many numbers move when one thing breaks. Of these, from causes to what follows, only the first
# is named: put it right, and look again.
CHAIN = list(SIGNS)[:10]
DESTROYED = CHAIN[:5]  # after these, nothing else that was measured tells anything
# Named below their limit.
BELOW = ("weights_shrink", "vanishing_gradients", "learning_rate_low", "slower")
IDLE = ("dropout_high", "weights_shrink", "learning_rate_low")  # named where little was learned
MUCH = 0.3  # of a constant answer's error, left on the training rows
LOGGED = ("train/loss", "val/loss", "train/gradient_norm")
# In each epoch.
MEASURED = [*LOGGED, "error", "dead", "moved", "first", "size", "dropped", "seconds", "memory"]
SECONDS = 10.0  # the speed of three epochs shorter than that tells of other programs
Epoch = dict[str, float]
Numbers = dict[str, float | None]


def measure(history: list[Epoch], start_loss: float, constant: float) -> Numbers:
    """The number of each sign, None where it could not be measured; `constant` is the loss of an
    answer that knows nothing.
    """
    epochs = pd.DataFrame(history).reindex(columns=MEASURED)  # not-a-number where not measured
    loss = epochs["train/loss"]
    val = epochs["val/loss"]
    last = epochs.iloc[-1]
    lowest = loss.cummin().shift()  # before each epoch
    gained = loss[0] - lowest
    lost = ((loss - lowest) / gained).clip(lower=0)
    falling = (loss[val == val.min()] > last["train/loss"]).any()  # since the best epoch
    triples = epochs["seconds"].rolling(3).median()
    memory = epochs["memory"].iloc[2:3].mean()
    numbers = {
        "not_finite": 0.0,
        "dropout_high": last["dropped"],
        "weights_shrink": last["size"],
        "learning_rate_high": loss.max() / max(start_loss, constant) - 1,
        "exploding_gradients": epochs["train/gradient_norm"].max(),
        "dead_units": last["dead"],
        "vanishing_gradients": last["first"],
        "learning_rate_low": epochs["moved"].max(),
        "loss_spike": lost[gained > 0.1 * constant].max(),
        "underfitting": last["error"] / constant,
        "overfitting": (val.tail(3).min() - val.min()) / constant * falling,
        "slower": triples.min() / triples.iloc[-1],
        "memory_growing": last["memory"] / memory - 1,
    }
    if len(history) < 3:
        del numbers["learning_rate_low"]  # it may have to warm up
    if epochs["seconds"].tail(3).sum() < SECONDS:
        del numbers["slower"]
    return {sign: None if math.isnan(number) else float(number) for sign, number in numbers.items()}


def beyond(numbers: Numbers, limits: Epoch, ended: bool) -> list[str]:
    """The signs beyond their limits, without those that follow from one before them."""
    signs = []
    for sign, number in numbers.items():
        side = -1 if sign in BELOW else 1
        if number is not None and side * number > side * limits[sign]:
            signs.append(sign)
    if not ended:
        signs = [sign for sign in signs if sign != "underfitting"]  # any training has only begun
    if (numbers["underfitting"] or 0.0) < MUCH:  # in spite of that it learned
        signs = [sign for sign in signs if sign not in IDLE]
    cause = [sign for sign in CHAIN if sign in signs][:1]
    if set(cause) & set(DESTROYED):
        return cause
    return cause + [sign for sign in signs if sign not in CHAIN]
