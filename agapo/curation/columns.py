"""Columns of other formats that say how a dialogue is meant and are not read here: none is passed over in silence.

A source reads such columns in its own way (`data.layouts` does for the common ones) or leaves them, and then the row is
refused. Those that say nothing, such as an empty list or a weight of 1, are let be.
"""

from collections.abc import Mapping
from typing import Any

from agapo.chat import UNTRAINED_MARKS, is_mark
from agapo.errors import UserError

_EMPTY = (None, False, "", [], (), {})
_WHOLE = (None, 1, "", [], ())
_SYSTEM = (_EMPTY, "make it the first turn, with the role 'system'")
_MASK = "put 'train': false on the turns that are not trained on"
_WEIGHT = (_WHOLE, "leave it out; how often rows are seen is up to the weights of the recipe's sources")
_MEDIA = (_EMPTY, "only texts are trained on; leave the row out")
_UNREAD = {
    **dict.fromkeys(("system", "system_prompt", "system_message", "system_instruction"), _SYSTEM),
    **dict.fromkeys(("loss_mask", "loss_masks", "train_mask", "trainable", "train_on_turn"), (_WHOLE, _MASK)),
    **dict.fromkeys(("train", "is_train", "do_train", "should_train", "training", "compute_loss"), (_WHOLE, _MASK)),
    **dict.fromkeys(UNTRAINED_MARKS, (_EMPTY, _MASK)),
    **dict.fromkeys(("mask_history", "train_on_inputs", "train_on_input", "train_on_prompt", "masks"), (_EMPTY, _MASK)),
    # NeMo's column names the role that is not trained on.
    "mask": ((*_EMPTY, "User", "user", "Human", "human"), _MASK),
    **dict.fromkeys(("weight", "weights", "loss_weights", "sample_weight", "loss_scale"), _WEIGHT),
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio"), _MEDIA),
    "history": (_EMPTY, "put its turns before the others"),
    "functions": (_EMPTY, "rename it to 'tools'"),
}
"""By the column's name: values that say nothing, and what to do about others."""


def check_columns(row: Mapping[str, Any], place: str) -> None:
    """Raise UserError naming a column that would change what is trained on, and the mend."""
    for name, value in row.items():
        nothing, mend = _UNREAD.get(name) or (([], (), {}) if _may_be_mark(name, value) else (value,), _MASK)
        if value not in nothing:
            raise UserError(f"{place}: column '{name}' is not read beside 'messages'; {mend}")


def _may_be_mark(name: str, value: Any) -> bool:
    """Whether a column says of the turns, or of the row, what is trained on; numbers and texts may be anything."""
    return is_mark(name) and isinstance(value, bool | list | tuple | Mapping)
