"""The library's operators; ``registry()`` lists them. Importing a name here gives the op itself."""

from fastcodec.ops._op import Op, connect, forced_backend, registry, use_backend
from fastcodec.ops.activation import activation
from fastcodec.ops.attention import attention
from fastcodec.ops.conv1d import ACTIVATIONS, PRECISIONS, conv1d, conv1d_pack
from fastcodec.ops.conv_transpose1d import conv_transpose1d, conv_transpose1d_pack
from fastcodec.ops.group_norm import group_norm
from fastcodec.ops.layer_norm import layer_norm
from fastcodec.ops.lstm import lstm, lstm_pack
from fastcodec.ops.push_plan import push_plan
from fastcodec.ops.residual_unit import residual_unit
from fastcodec.ops.rotations import rotations
from fastcodec.ops.rvq_decode import rvq_decode
from fastcodec.ops.rvq_decode_factorised import rvq_decode_factorised
from fastcodec.ops.rvq_encode import rvq_encode, rvq_encode_pack
from fastcodec.ops.rvq_encode_factorised import rvq_encode_factorised, rvq_encode_factorised_pack
from fastcodec.ops.snake import snake, snake_out

connect()

__all__ = [
    "ACTIVATIONS",
    "PRECISIONS",
    "Op",
    "activation",
    "attention",
    "conv1d",
    "conv1d_pack",
    "conv_transpose1d",
    "conv_transpose1d_pack",
    "forced_backend",
    "group_norm",
    "layer_norm",
    "lstm",
    "lstm_pack",
    "push_plan",
    "registry",
    "residual_unit",
    "rotations",
    "rvq_decode",
    "rvq_decode_factorised",
    "rvq_encode",
    "rvq_encode_factorised",
    "rvq_encode_factorised_pack",
    "rvq_encode_pack",
    "snake",
    "snake_out",
    "use_backend",
]
