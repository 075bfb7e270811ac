// What the torch side of the CUDA kernels shares.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <tuple>

namespace fastcodec {

using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;
using MaybeTensor = std::optional<Tensor>;

inline float* data(const Tensor& t) { return static_cast<float*>(t.data_ptr()); }

inline void check(const Tensor& t, const Tensor& x, const char* what) {
  STD_TORCH_CHECK(t.is_cuda() && t.get_device_index() == x.get_device_index() &&
                      t.scalar_type() == torch::headeronly::ScalarType::Float,
                  "fastcodec: ", what, " must be float32 on the GPU of x");
}

inline void check_launch(cudaError_t error, const char* op) {
  STD_TORCH_CHECK(error == cudaSuccess, "fastcodec: ", op, ": ", cudaGetErrorString(error));
}

inline cudaStream_t stream_of(const Tensor& x) {
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// 10 * major + minor. Only asks the driver's tables, so it can be captured.
inline int capability_of(const Tensor& x) {
  int major = 0, minor = 0;
  const int device = x.get_device_index();
  check_launch(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "device");
  check_launch(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "device");
  return 10 * major + minor;
}

inline Tensor empty(std::initializer_list<int64_t> sizes, std::initializer_list<int64_t> strides,
                    int32_t dtype, const Tensor& near) {
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.begin(), strides.begin(), dtype,
      aoti_torch_device_type_cuda(), near.get_device_index(), &handle));
  return Tensor(handle);
}

inline Tensor empty_vector(int64_t size, int32_t dtype, const Tensor& near) {
  return empty({size}, {1}, dtype, near);
}

inline Tensor empty_time_major(int64_t batch, int64_t channels, int64_t frames,
                               const Tensor& near) {
  return empty({batch, channels, frames}, {frames * channels, 1, channels},
               aoti_torch_dtype_float32(), near);
}

// Itself where it is dense from a 16-byte boundary on, else a copy.
inline Tensor aligned(const Tensor& t) {
  const Tensor dense = torch::stable::contiguous(t);
  return reinterpret_cast<uintptr_t>(dense.data_ptr()) % 16 == 0 ? dense
                                                                 : torch::stable::clone(dense);
}

// The ops, under the names and with the arguments of their schemas.
Tensor snake_op(Tensor x, Tensor alpha, MaybeTensor beta);
void snake_out_op(Tensor x, Tensor alpha, MaybeTensor beta, Tensor out);
std::tuple<Tensor, Tensor, Tensor> snake_backward_op(Tensor grad, Tensor x, Tensor alpha,
                                                     MaybeTensor beta);
Tensor rvq_encode_op(Tensor x, Tensor codebooks, MaybeTensor packed);
Tensor rvq_decode_op(Tensor codes, Tensor codebooks);
std::tuple<Tensor, Tensor, Tensor> lstm_op(Tensor x, Tensor h, Tensor c, Tensor weight_ih,
                                           Tensor weight_hh, Tensor bias_ih, Tensor bias_hh,
                                           MaybeTensor packed, bool skip, int64_t precision);
Tensor residual_unit_op(Tensor x, Tensor weight, MaybeTensor bias, MaybeTensor alpha,
                        Tensor point_weight, MaybeTensor point_bias, MaybeTensor point_alpha,
                        int64_t dilation, int64_t groups, int64_t left, int64_t activation,
                        double slope, int64_t precision);

}  // namespace fastcodec
