// Which function serves which op. Schemas are declared in Python (fastcodec/ops); those the
// functions were written for are exported, and compared when the library is loaded.
#include "glue.h"

extern "C" __attribute__((visibility("default"))) const char* fastcodec_schemas() {
  return "conv1d(Tensor x, Tensor weight, Tensor? bias=None, Tensor? residual=None, "
         "Tensor? alpha=None, Tensor? beta=None, Tensor? packed=None, SymInt stride=1, "
         "SymInt dilation=1, SymInt groups=1, SymInt activation=0, float slope=0.0, "
         "SymInt precision=0) -> Tensor\n"
         "conv1d_pack(Tensor weight, SymInt groups=1, SymInt precision=0) -> Tensor\n"
         "conv_transpose1d(Tensor x, Tensor weight, Tensor? bias=None, Tensor? alpha=None, "
         "Tensor? beta=None, Tensor? packed=None, SymInt stride=1, SymInt groups=1, "
         "SymInt activation=0, float slope=0.0, SymInt precision=0) -> Tensor\n"
         "conv_transpose1d_pack(Tensor weight, SymInt stride=1, SymInt groups=1, "
         "SymInt precision=0) -> Tensor\n"
         "activation(Tensor x, SymInt kind, float slope=0.0) -> Tensor\n"
         "attention(Tensor q, Tensor k, Tensor v, Tensor first, Tensor last, SymInt heads, "
         "float scale) -> Tensor\n"
         "snake(Tensor x, Tensor alpha, Tensor? beta=None) -> Tensor\n"
         "lstm(Tensor x, Tensor h, Tensor c, Tensor weight_ih, Tensor weight_hh, Tensor bias_ih, "
         "Tensor bias_hh, Tensor? packed=None, bool skip=False, SymInt precision=0) -> (Tensor, "
         "Tensor, Tensor)\n"
         "lstm_pack(Tensor weight_ih, Tensor weight_hh, SymInt precision=0) -> Tensor\n"
         "rvq_encode(Tensor x, Tensor codebooks, Tensor? packed=None) -> Tensor\n"
         "rvq_encode_pack(Tensor codebooks) -> Tensor\n"
         "rvq_decode(Tensor codes, Tensor codebooks) -> Tensor\n"
         "group_norm(Tensor x, Tensor weight, Tensor bias, float epsilon=1e-05) -> Tensor\n"
         "layer_norm(Tensor x, Tensor weight, Tensor bias, float epsilon=1e-05) -> Tensor\n"
         "rotations(Tensor frequency, SymInt position, SymInt frames) -> Tensor\n"
         "push_plan(Tensor x, Tensor steps, Tensor(a2!) carried, Tensor(a3!) counts) -> Tensor\n"
         "rvq_encode_factorised(Tensor x, Tensor in_weight, Tensor in_bias, Tensor codebooks, "
         "Tensor out_weight, Tensor out_bias, Tensor? packed=None) -> Tensor\n"
         "rvq_encode_factorised_pack(Tensor codebooks) -> Tensor\n"
         "rvq_decode_factorised(Tensor codes, Tensor codebooks, Tensor out_weight, "
         "Tensor out_bias) -> Tensor\n"
         "snake_out(Tensor x, Tensor alpha, Tensor? beta, Tensor(a3!) out) -> ()\n"
         "snake_backward(Tensor grad, Tensor x, Tensor alpha, Tensor? beta=None) -> (Tensor, "
         "Tensor, Tensor)\n";
}

STABLE_TORCH_LIBRARY_IMPL(fastcodec, CPU, m) {
  m.impl("conv1d", TORCH_BOX(&fastcodec::conv1d));
  m.impl("conv1d_pack", TORCH_BOX(&fastcodec::conv1d_pack));
  m.impl("conv_transpose1d", TORCH_BOX(&fastcodec::conv_transpose1d));
  m.impl("conv_transpose1d_pack", TORCH_BOX(&fastcodec::conv_transpose1d_pack));
  m.impl("activation", TORCH_BOX(&fastcodec::activation));
  m.impl("attention", TORCH_BOX(&fastcodec::attention));
  m.impl("snake", TORCH_BOX(&fastcodec::snake));
  m.impl("lstm", TORCH_BOX(&fastcodec::lstm));
  m.impl("lstm_pack", TORCH_BOX(&fastcodec::lstm_pack));
  m.impl("rvq_encode", TORCH_BOX(&fastcodec::rvq_encode));
  m.impl("rvq_encode_pack", TORCH_BOX(&fastcodec::rvq_encode_pack));
  m.impl("rvq_decode", TORCH_BOX(&fastcodec::rvq_decode));
  m.impl("group_norm", TORCH_BOX(&fastcodec::group_norm));
  m.impl("layer_norm", TORCH_BOX(&fastcodec::layer_norm));
  m.impl("rotations", TORCH_BOX(&fastcodec::rotations));
  m.impl("push_plan", TORCH_BOX(&fastcodec::push_plan));
  m.impl("rvq_encode_factorised", TORCH_BOX(&fastcodec::rvq_encode_factorised));
  m.impl("rvq_encode_factorised_pack", TORCH_BOX(&fastcodec::rvq_encode_factorised_pack));
  m.impl("rvq_decode_factorised", TORCH_BOX(&fastcodec::rvq_decode_factorised));
  m.impl("snake_out", TORCH_BOX(&fastcodec::snake_out));
  m.impl("snake_backward", TORCH_BOX(&fastcodec::snake_backward));
}
