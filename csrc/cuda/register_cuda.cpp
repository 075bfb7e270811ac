// The torch side of the CUDA library: unpacks tensors, allocates results, launches on torch's
// current stream.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

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

}  // namespace

extern "C" __attribute__((visibility("default"))) const char* fastcodec_schemas() {
  return "snake(Tensor x, Tensor alpha, Tensor? beta=None) -> Tensor\n";
}

STABLE_TORCH_LIBRARY_IMPL(fastcodec, CUDA, m) { m.impl("snake", TORCH_BOX(&snake)); }
