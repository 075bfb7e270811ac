// The torch side of the CUDA kernels: unpacks tensors, allocates results, launches on torch's
// current stream.
#include "cuda/glue.h"
#include "cuda/lstm.cuh"
#include "cuda/rvq_decode.cuh"
#include "cuda/rvq_encode.cuh"
#include "cuda/snake.cuh"

namespace fastcodec {
namespace {

const float* data_or_null(const MaybeTensor& t) { return t.has_value() ? data(*t) : nullptr; }

void check_channels(const Tensor& x, const Tensor& alpha, const MaybeTensor& beta) {
  check(x, x, "snake: x");
  STD_TORCH_CHECK(x.dim() == 3, "fastcodec: snake: x must be [B, C, T]");
  for (const Tensor& t : {alpha, beta.has_value() ? *beta : alpha}) {
    check(t, x, "snake: alpha and beta");
    STD_TORCH_CHECK(t.is_contiguous() && t.numel() == x.size(1),
                    "fastcodec: snake: alpha and beta must be [C]");
  }
}

bool is_time_major(const Tensor& x) { return torch::stable::transpose(x, 1, 2).is_contiguous(); }

// Elements of one channel side by side, of a dense signal.
int64_t inner(const Tensor& x, bool time_major) {
  return time_major && x.size(1) > 1 ? 1 : x.size(2);
}

void run_snake(const Tensor& x, const Tensor& alpha, const MaybeTensor& beta, bool time_major,
               const Tensor& out) {
  const DeviceGuard guard(x.get_device_index());
  check_launch(snake(data(x), data(alpha), data_or_null(beta), data(out), x.numel(), x.size(1),
                     inner(x, time_major), stream_of(x)),
               "snake");
}

const Tensor& check_codebooks(const Tensor& codebooks) {
  check(codebooks, codebooks, "codebooks");
  STD_TORCH_CHECK(codebooks.dim() == 3, "fastcodec: codebooks must be [K, N, D]");
  return codebooks;
}

}  // namespace

Tensor snake_op(Tensor x, Tensor alpha, MaybeTensor beta) {
  check_channels(x, alpha, beta);
  const bool time_major = is_time_major(x);
  const Tensor in = time_major ? x : torch::stable::contiguous(x);
  Tensor out = torch::stable::empty_like(in);
  run_snake(in, alpha, beta, time_major, out);
  return out;
}

void snake_out_op(Tensor x, Tensor alpha, MaybeTensor beta, Tensor out) {
  check_channels(x, alpha, beta);
  check(out, x, "snake_out: out");
  bool same = out.dim() == 3;
  for (int i = 0; same && i < 3; ++i) same = out.size(i) == x.size(i);
  const bool time_major = is_time_major(out);
  STD_TORCH_CHECK(same && (time_major || out.is_contiguous()),
                  "fastcodec: snake_out: out must be dense and of the shape of x");
  if (x.numel() == 0) return;
  const bool dense = time_major ? is_time_major(x) : x.is_contiguous();
  int64_t span = 1;
  for (int i = 0; i < 3; ++i) span += (x.size(i) - 1) * x.stride(i);
  const bool apart = data(out) + out.numel() <= data(x) || data(x) + span <= data(out);
  STD_TORCH_CHECK(apart || (dense && data(out) == data(x)),
                  "fastcodec: snake_out: out must be x itself or memory of its own");
  if (dense) return run_snake(x, alpha, beta, time_major, out);
  Tensor target = out;
  torch::stable::copy_(target, x);
  run_snake(out, alpha, beta, time_major, out);
}

std::tuple<Tensor, Tensor, Tensor> snake_backward_op(Tensor grad, Tensor x, Tensor alpha,
                                                     MaybeTensor beta) {
  check_channels(x, alpha, beta);
  check(grad, x, "snake_backward: grad");
  const bool time_major = is_time_major(x) && is_time_major(grad);
  bool same = grad.dim() == 3 && (time_major || (x.is_contiguous() && grad.is_contiguous()));
  for (int i = 0; same && i < 3; ++i) same = grad.size(i) == x.size(i);
  STD_TORCH_CHECK(same, "fastcodec: snake_backward: grad and x must be dense and of one layout");
  const int64_t batch = x.size(0), channels = x.size(1), frames = x.size(2);
  Tensor dx = torch::stable::empty_like(x);
  Tensor d_alpha = torch::stable::empty_like(alpha), d_beta = torch::stable::empty_like(alpha);
  const Tensor sums =
      empty_vector(2 * snake_tiles(batch, frames) * channels, aoti_torch_dtype_float64(), x);
  const bool rows = inner(x, time_major) == 1;
  const SnakeBackward p = {data(grad),
                           data(x),
                           data(alpha),
                           beta.has_value() ? data(*beta) : data(alpha),
                           data(dx),
                           data(d_alpha),
                           data(d_beta),
                           static_cast<double*>(sums.data_ptr()),
                           batch,
                           channels,
                           frames,
                           channels * frames,
                           rows ? 1 : frames,
                           rows ? channels : 1};
  const DeviceGuard guard(x.get_device_index());
  check_launch(snake_backward(p, stream_of(x)), "snake_backward");
  return {dx, d_alpha, d_beta};
}

Tensor rvq_encode_op(Tensor x, Tensor codebooks, MaybeTensor packed) {
  check(x, x, "rvq_encode: x");
  check(codebooks, x, "rvq_encode: codebooks");
  STD_TORCH_CHECK(x.dim() == 3 && codebooks.dim() == 3 && x.size(1) == codebooks.size(2),
                  "fastcodec: rvq_encode: x must be [B, D, T] and codebooks [K, N, D]");
  STD_TORCH_CHECK(!packed.has_value(), "fastcodec: rvq_encode: packed is for the CPU");
  const int64_t batch = x.size(0), frames = x.size(2), stages = codebooks.size(0);
  Tensor codes =
      empty({batch, stages, frames}, {stages * frames, frames, 1}, aoti_torch_dtype_int64(), x);
  if (codes.numel() == 0) return codes;
  RvqPlan plan{};
  STD_TORCH_CHECK(plan_rvq_encode(batch * frames, codebooks.size(1), codebooks.size(2),
                                  capability_of(x), &plan),
                  "fastcodec: rvq_encode: words of ", codebooks.size(2),
                  " features do not fit the shared memory of this GPU");
  const Tensor books = aligned(codebooks);
  const int64_t padded = rvq_slice(codebooks.size(1), plan) * plan.launch.cluster;
  const Tensor offsets = empty_vector(stages * padded, aoti_torch_dtype_float32(), x);
  RvqEncode p{};
  p.x = data(x), p.x_batch = x.stride(0), p.x_channel = x.stride(1), p.x_frame = x.stride(2);
  p.codebooks = data(books), p.offsets = data(offsets);
  p.codes = static_cast<int64_t*>(codes.data_ptr());
  p.rows = batch * frames, p.frames = frames, p.stages = static_cast<int>(stages);
  p.words = static_cast<int>(codebooks.size(1)), p.features = static_cast<int>(codebooks.size(2));
  const DeviceGuard guard(x.get_device_index());
  check_launch(rvq_encode(p, plan, stream_of(x)), "rvq_encode");
  return codes;
}

Tensor rvq_decode_op(Tensor codes, Tensor codebooks) {
  const Tensor books = aligned(check_codebooks(codebooks));
  STD_TORCH_CHECK(codes.is_cuda() && codes.get_device_index() == books.get_device_index() &&
                      codes.dim() == 3 && codes.size(1) <= books.size(0) &&
                      codes.scalar_type() == torch::headeronly::ScalarType::Long,
                  "fastcodec: rvq_decode: codes must be [B, K <= ", books.size(0),
                  ", T] int64 on the GPU of the codebooks");
  const int64_t batch = codes.size(0), frames = codes.size(2);
  Tensor out = empty_time_major(batch, books.size(2), frames, books);
  if (out.numel() == 0) return out;
  const RvqDecode p = {static_cast<const int64_t*>(codes.data_ptr()),
                       codes.stride(0),
                       codes.stride(1),
                       codes.stride(2),
                       data(books),
                       data(out),
                       batch * frames,
                       frames,
                       static_cast<int>(books.size(2)),
                       static_cast<int>(books.size(1)),
                       static_cast<int>(codes.size(1))};
  const DeviceGuard guard(books.get_device_index());
  check_launch(rvq_decode(p, stream_of(books)), "rvq_decode");
  return out;
}

std::tuple<Tensor, Tensor, Tensor> lstm_op(Tensor x, Tensor h, Tensor c, Tensor weight_ih,
                                           Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                           MaybeTensor packed, bool skip, int64_t precision) {
  for (const Tensor* t : {&x, &h, &c, &weight_ih, &weight_hh, &bias_ih, &bias_hh}) {
    check(*t, x, "lstm: arguments");
    STD_TORCH_CHECK(t == &x || t->is_contiguous(),
                    "fastcodec: lstm: state, weights and biases "
                    "must be contiguous");
  }
  STD_TORCH_CHECK(x.dim() == 3 && weight_ih.dim() == 3, "fastcodec: lstm: x must be [B, H, T], ",
                  "weights [L, 4 H, H]");
  const int64_t batch = x.size(0), hidden = x.size(1), frames = x.size(2);
  const int64_t layers = weight_ih.size(0), state = batch * hidden, gates = 4 * hidden;
  STD_TORCH_CHECK(weight_ih.size(1) == gates && weight_ih.size(2) == hidden &&
                      weight_hh.numel() == weight_ih.numel() && bias_ih.numel() == layers * gates &&
                      bias_hh.numel() == layers * gates && h.numel() == layers * state &&
                      c.numel() == layers * state && !packed.has_value() && 0 <= precision &&
                      precision <= 2,
                  "fastcodec: lstm: x [B, H, T], h and c [L, B, H], weights [L, 4 H, H], biases ",
                  "[L, 4 H], packed None, precision 0, 1 or 2");
  Tensor out = empty_time_major(batch, hidden, frames, x);
  if (out.numel() == 0 || layers == 0) {
    if (out.numel() > 0) torch::stable::copy_(out, x);
    return {out, torch::stable::clone(h), torch::stable::clone(c)};
  }
  Tensor h_out = torch::stable::empty_like(h), c_out = torch::stable::empty_like(c);
  LstmPlan plan{};
  STD_TORCH_CHECK(plan_lstm(batch, hidden, capability_of(x), &plan),
                  "fastcodec: lstm: no plan for ", hidden, " hidden units");
  const int32_t floats = aoti_torch_dtype_float32();
  const Tensor scratch = empty_vector(batch * frames * gates, floats, x);
  const Tensor exchange = empty_vector(2 * state, floats, x);
  LstmLayer p{};
  p.x = data(x), p.x_batch = x.stride(0), p.x_channel = x.stride(1), p.x_frame = x.stride(2);
  p.gates = data(scratch), p.exchange = data(exchange), p.out = data(out);
  p.skip_batch = p.x_batch, p.skip_channel = p.x_channel, p.skip_frame = p.x_frame;
  p.batch = batch, p.frames = frames, p.hidden = static_cast<int>(hidden);
  p.medium = precision == 2;
  const DeviceGuard guard(x.get_device_index());
  for (int64_t l = 0; l < layers; ++l) {
    p.weight_ih = data(weight_ih) + l * gates * hidden;
    p.weight_hh = data(weight_hh) + l * gates * hidden;
    p.bias_ih = data(bias_ih) + l * gates, p.bias_hh = data(bias_hh) + l * gates;
    p.h_in = data(h) + l * state, p.c_in = data(c) + l * state;
    p.h_out = data(h_out) + l * state, p.c_out = data(c_out) + l * state;
    p.skip = skip && l + 1 == layers ? data(x) : nullptr;
    check_launch(lstm_layer(p, plan, stream_of(x)), "lstm");
    p.x = p.out, p.x_batch = frames * hidden, p.x_channel = 1, p.x_frame = hidden;
  }
  return {out, h_out, c_out};
}

}  // namespace fastcodec
