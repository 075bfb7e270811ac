// Launcher of rvq_decode.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastcodec {

struct RvqDecode {
  const int64_t* codes;
  int64_t by_batch, by_stage, by_frame;  // strides
  const float* codebooks;                // [K, N, D]
  float* out;                            // [B, T, D]
  int64_t rows, frames;
  int features, words, stages;
};

cudaError_t rvq_decode(const RvqDecode& p, cudaStream_t stream);

}  // namespace fastcodec
