// residual_unit: its torch side.
#include "cuda/glue.h"
#include "cuda/residual_unit.cuh"

namespace fastcodec {
namespace {

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

}  // namespace

Tensor residual_unit_op(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
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
  const ResidualUnitSizes sizes{x.size(0),
                                frames,
                                static_cast<int>(channels),
                                static_cast<int>(hidden),
                                static_cast<int>(taps),
                                static_cast<int>(dilation),
                                precision == 2};
  const DeviceGuard guard(x.get_device_index());
  ResidualUnitPlan plan{};
  STD_TORCH_CHECK(plan_residual_unit_here(sizes, &plan),
                  "fastcodec: residual_unit: no tile fits the shared memory of this GPU");
  const Tensor rows = in_rows(x), first = torch::stable::contiguous(weight);
  const Tensor second = torch::stable::contiguous(point_weight);
  const Tensor packed = torch::stable::new_empty(x, {plan.packed_words});
  const ResidualUnitArguments arguments{data(rows),
                                        data(first),
                                        data_or_null(bias),
                                        data_or_null(alpha),
                                        data(second),
                                        data_or_null(point_bias),
                                        data_or_null(point_alpha),
                                        data(out),
                                        rows.stride(0),
                                        rows.stride(1),
                                        static_cast<int>(left),
                                        static_cast<int>(activation),
                                        static_cast<float>(slope)};
  check_launch(residual_unit(arguments, sizes, plan, packed.data_ptr(), stream_of(x)),
               "residual_unit");
  return torch::stable::transpose(out, 1, 2);
}

}  // namespace fastcodec
