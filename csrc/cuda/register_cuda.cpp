// Which function serves which op on the GPU. Schemas are declared in Python (fastcodec/ops); those
// the functions were written for are exported, and compared when the library is loaded.
#include "cuda/glue.h"

extern "C" __attribute__((visibility("default"))) const char* fastcodec_schemas() {
  return "snake(Tensor x, Tensor alpha, Tensor? beta=None) -> Tensor\n"
         "snake_out(Tensor x, Tensor alpha, Tensor? beta, Tensor(a3!) out) -> ()\n"
         "snake_backward(Tensor grad, Tensor x, Tensor alpha, Tensor? beta=None) -> (Tensor, "
         "Tensor, Tensor)\n"
         "rvq_encode(Tensor x, Tensor codebooks, Tensor? packed=None) -> Tensor\n"
         "rvq_decode(Tensor codes, Tensor codebooks) -> Tensor\n"
         "lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih, Tensor weight_hh, Tensor bias_ih, "
         "Tensor bias_hh, Tensor? packed=None, bool skip=False, SymInt precision=0) -> (Tensor, "
         "Tensor, Tensor)\n"
         "residual_unit(Tensor x, Tensor weight, Tensor? bias, Tensor? alpha, Tensor point_weight, "
         "Tensor? point_bias, Tensor? point_alpha, SymInt dilation=1, SymInt groups=1, "
         "SymInt left=0, SymInt activation=0, float slope=0.0, SymInt precision=0) -> Tensor\n";
}

STABLE_TORCH_LIBRARY_IMPL(fastcodec, CUDA, m) {
  m.impl("snake", TORCH_BOX(&fastcodec::snake_op));
  m.impl("snake_out", TORCH_BOX(&fastcodec::snake_out_op));
  m.impl("snake_backward", TORCH_BOX(&fastcodec::snake_backward_op));
  m.impl("rvq_encode", TORCH_BOX(&fastcodec::rvq_encode_op));
  m.impl("rvq_decode", TORCH_BOX(&fastcodec::rvq_decode_op));
  m.impl("lstm", TORCH_BOX(&fastcodec::lstm_op));
  m.impl("residual_unit", TORCH_BOX(&fastcodec::residual_unit_op));
}
