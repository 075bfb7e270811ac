// The torch side of the CUDA library: unpacks tensors, allocates results, launches on torch's
// current stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "residual_unit.cuh"
#include "snake.cuh"

using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

namespace {

const float* data(const Tensor& t) { return static_cast<const float*>(t.data_ptr()); }

void check(const Tensor& t, const Tensor& x, const char* what) {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == x.get_device_index() &&
                      t.scalar_type() == torch::headeronly::ScalarType::Float,
                  "fastcodec: ", what, " must be float32 on the GPU of x");
}

cudaStream_t stream_of(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

Tensor snake(Tensor x, Tensor alpha, MaybeTensor beta) {
  const Tensor b = beta.has_value() ? *beta : alpha;
  check(x, x, "snake: x");
  check(alpha, x, "snake: alpha");
  check(b, x, "snake: beta");
  STD_TORCH_CHECK(x.dim() == 3 && alpha.is_contiguous() && b.is_contiguous() &&
                      alpha.numel() == x.size(1) && b.numel() == x.size(1),
                  "fastcodec: snake: x must be [B, C, T], alpha and beta [C]");
  const Tensor frames = torch::stable::transpose(x, 1, 2);
  const bool time_major = frames.is_contiguous();
  const Tensor in = time_major ? frames : torch::stable::contiguous(x);
  Tensor out = torch::stable::empty_like(in);
  fastcodec::snake(data(in), data(alpha), data(b), static_cast<float*>(out.data_ptr()), x.numel(),
                   x.size(1), time_major ? 1 : x.size(2), stream_of(x));
  return time_major ? torch::stable::transpose(out, 1, 2) : out;
}

// x as [B, S, C] with channels adjacent and rows on 16 bytes, copied where it is not.
Tensor in_rows(const Tensor& x) {
  const Tensor frames = torch::stable::transpose(x, 1, 2);
  const bool aligned = reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0 &&
                       frames.stride(0) % 4 == 0 && frames.stride(1) % 4 == 0;
  return frames.stride(2) == 1 && aligned ? frames : torch::stable::contiguous(frames);
}

void check_vector(const MaybeTensor& v, const Tensor& x, int64_t size, const char* what) {
  if (!v.has_value()) return;
  check(*v, x, what);
  STD_TORCH_CHECK(v->numel() == size && v->is_contiguous(), "fastcodec: ", what, " must have ",
                  size, " values");
}

const float* data_or_null(const MaybeTensor& t) { return t.has_value() ? data(*t) : nullptr; }

Tensor residual_unit(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
                     Tensor point_weight, MaybeTensor point_bias, MaybeTensor point_alpha,
                     int64_t dilation, int64_t groups, int64_t left, int64_t activation,
                     double slope, int64_t precision) {
  const char* what = "residual_unit: arguments";
  for (const Tensor* t : {&x, &weight, &point_weight}) check(*t, x, what);
  STD_TORCH_CHECK(x.dim() == 3 && weight.dim() == 3 && groups == 1 && weight.size(1) == x.size(1) &&
                      point_weight.dim() == 3 && point_weight.size(0) == x.size(1) &&
                      point_weight.size(1) == weight.size(0) && point_weight.size(2) == 1,
                  "fastcodec: residual_unit: x must be [B, C, S], weight [H, C, k], point_weight "
                  "[C, H, 1]");
  const int64_t channels = x.size(1), hidden = weight.size(0), taps = weight.size(2);
  const int64_t context = (taps - 1) * dilation, frames = x.size(2) - context;
  check_vector(bias, x, hidden, what);
  check_vector(alpha, x, channels, what);
  check_vector(point_bias, x, channels, what);
  check_vector(point_alpha, x, hidden, what);
  STD_TORCH_CHECK(frames >= 0 && dilation > 0 && 0 <= left && left <= context,
                  "fastcodec: residual_unit: expected ", context, " frames of context or more and ",
                  "left among them, got ", x.size(2), " frames and ", left);
  STD_TORCH_CHECK(activation != 3 || (alpha.has_value() && point_alpha.has_value()),
                  "fastcodec: residual_unit: a snake needs alpha and point_alpha");
  Tensor out = torch::stable::new_empty(x, {x.size(0), frames, channels});
  const fastcodec::ResidualUnitSizes sizes{x.size(0),
                                           frames,
                                           static_cast<int>(channels),
                                           static_cast<int>(hidden),
                                           static_cast<int>(taps),
                                           static_cast<int>(dilation),
                                           precision == 2};
  fastcodec::ResidualUnitPlan plan{};
  STD_TORCH_CHECK(fastcodec::plan_residual_unit_here(sizes, &plan),
                  "fastcodec: residual_unit: no tile fits the shared memory of this GPU");
  const Tensor rows = in_rows(x), first = torch::stable::contiguous(weight);
  const Tensor second = torch::stable::contiguous(point_weight);
  const Tensor packed = torch::stable::new_empty(x, {plan.packed_words});
  const fastcodec::ResidualUnitArguments arguments{data(rows),
                                                   data(first),
                                                   data_or_null(bias),
                                                   data_or_null(alpha),
                                                   data(second),
                                                   data_or_null(point_bias),
                                                   data_or_null(point_alpha),
                                                   static_cast<float*>(out.data_ptr()),
                                                   rows.stride(0),
                                                   rows.stride(1),
                                                   static_cast<int>(left),
                                                   static_cast<int>(activation),
                                                   static_cast<float>(slope)};
  const cudaError_t error =
      fastcodec::residual_unit(arguments, sizes, plan, packed.data_ptr(), stream_of(x));
  STD_TORCH_CHECK(error == cudaSuccess, "fastcodec: residual_unit: ", cudaGetErrorString(error));
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* fastcodec_schemas() {
  return "snake(Tensor x, Tensor alpha, Tensor? beta=None) -> Tensor\n"
         "residual_unit(Tensor x, Tensor weight, Tensor? bias, Tensor? alpha, Tensor point_weight, "
         "Tensor? point_bias, Tensor? point_alpha, SymInt dilation=1, SymInt groups=1, "
         "SymInt left=0, SymInt activation=0, float slope=0.0, SymInt precision=0) -> Tensor\n";
}

STABLE_TORCH_LIBRARY_IMPL(fastcodec, CUDA, m) {
  m.impl("snake", TORCH_BOX(&snake));
  m.impl("residual_unit", TORCH_BOX(&residual_unit));
}
