// Launcher of snake.cu. `inner`: elements of one channel that lie side by side.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace fastcodec {

void snake(const float* x, const float* alpha, const float* beta, float* out, int64_t count,
           int64_t channels, int64_t inner, cudaStream_t stream);

}  // namespace fastcodec
