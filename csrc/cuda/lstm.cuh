// Launcher of lstm.cu, and what a block keeps in shared memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/plan.h"

namespace fastcodec {

struct LstmLayer {
  const float* x;  // [B, T, H] by strides
  int64_t x_batch, x_channel, x_frame;
  const float *weight_ih, *weight_hh, *bias_ih, *bias_hh;  // [4 H, H], [4 H]
  const float *h_in, *c_in;                                // [B, H]
  float *h_out, *c_out;
  float* gates;     // [B, T, 4 H] scratch
  float* exchange;  // [2, B, H] scratch where each frame is a launch
  float* out;       // [B, T, H] dense
  const float* skip;
  int64_t skip_batch, skip_channel, skip_frame;
  int64_t batch, frames;
  int hidden;
  bool medium;
};

constexpr int kLstmUnits = 32;  // of a block that keeps its weights on chip
constexpr int kLstmLanes = 4;   // that share a gate's sum

// Quads of weights that a lane keeps in registers, next to the sums of so many rows.
__host__ __device__ inline constexpr int lstm_held(int rows) {
  return rows == 1 ? 12 : rows == 2 ? 10 : 6;
}

// Quads of a lane's share of a sum: the lanes take turns.
__host__ __device__ inline constexpr int64_t lstm_quads(int64_t hidden) {
  return (hidden + 4 * kLstmLanes - 1) / (4 * kLstmLanes);
}

// Two operands of each row, then the weights that are not in registers.
__host__ __device__ inline constexpr int64_t lstm_shared_bytes(int64_t hidden, int rows,
                                                               int units) {
  const int64_t quads = lstm_quads(hidden), threads = (16 * units + 31) / 32 * 32;
  const int64_t kept = quads > lstm_held(rows) ? quads - lstm_held(rows) : 0;
  return 16 * (2 * rows * quads * kLstmLanes + kept * threads);
}

cudaError_t lstm_layer(const LstmLayer& p, const LstmPlan& plan, cudaStream_t stream);

}  // namespace fastcodec
