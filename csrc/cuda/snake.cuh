// Launchers of snake.cu. `inner`: elements of one channel that lie side by side.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastcodec {

// beta: alpha where null. out may be x.
cudaError_t snake(const float* x, const float* alpha, const float* beta, float* out, int64_t count,
                  int64_t channels, int64_t inner, cudaStream_t stream);

struct SnakeBackward {
  const float *grad, *x, *alpha, *beta;
  float *dx, *d_alpha, *d_beta;
  double* sums;  // [2, tiles, C] scratch
  int64_t batch, channels, frames;
  int64_t batch_stride, channel_stride, frame_stride;  // of grad, x and dx
};

constexpr int64_t kSnakeTile = 512;  // frames whose sums are one

inline constexpr int64_t snake_tiles(int64_t batch, int64_t frames) {
  return batch * ((frames + kSnakeTile - 1) / kSnakeTile);
}

// Gradients of x, alpha and beta, as if beta were not alpha.
cudaError_t snake_backward(const SnakeBackward& p, cudaStream_t stream);

}  // namespace fastcodec
