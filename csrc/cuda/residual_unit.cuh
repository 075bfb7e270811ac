// Launcher of residual_unit.cu.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "residual_unit_plan.h"

namespace fastcodec {

// x: [B, S, C] with channels adjacent, rows on 16 bytes; out: [B, T, C]; weight [H, C, k] and
// point_weight [C, H], the others [H] or [C] or null, alphas where the activation is snake.
struct ResidualUnitArguments {
  const float *x, *weight, *bias, *alpha, *point_weight, *point_bias, *point_alpha;
  float* out;
  int64_t x_batch, x_frame;  // strides
  int left, activation;
  float slope;
};

// The plan on the current GPU; false where it has no room.
bool plan_residual_unit_here(const ResidualUnitSizes& sizes, ResidualUnitPlan* plan);

// `packed`: memory of plan.packed_words words on the GPU, on 16 bytes.
cudaError_t residual_unit(const ResidualUnitArguments& arguments, const ResidualUnitSizes& sizes,
                          const ResidualUnitPlan& plan, void* packed, cudaStream_t stream);

}  // namespace fastcodec
