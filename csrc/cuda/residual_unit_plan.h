// How a residual unit is cut up for a GPU: decided on the host, from sizes alone.
#pragma once

#include <cstdint>

namespace fastcodec {

struct ResidualUnitSizes {
  int64_t batch, frames;  // of the result
  int channels, hidden, taps, dilation;
  bool medium;  // products of bfloat16; else three products of TF32 pairs
};

constexpr int kMostStationaryHidden = 96;  // of a weight [H, H, 7] that fits

// Blocks of 16 frames that a warp takes at once. The sums of each fill H / 2 registers of a lane;
// in float32 those of a tap as many again.
constexpr int residual_unit_rows16(bool medium, int hidden) {
  return medium && hidden <= 128 ? 2 : 1;
}

// A team of warps makes a tile: 16 * rows16 frames a warp.
struct ResidualUnitPlan {
  int stationary;  // the weights stay in shared memory; else they are read from global memory
  int rows16;
  int warps;  // of a team
  int teams;  // of a block, each with a tile of its own
  int tile_frames;
  int64_t tile_words;    // of 4 bytes, of a team in shared memory
  int64_t weight_words;  // of both convolutions, packed
  int64_t packed_words;  // with the constants of the activations behind them
  int64_t shared_bytes;
  int64_t blocks;
};

// False where even the smallest tile does not fit. `shared_limit`: bytes that a block may have;
// `processors`: of the GPU. What a sum is made of, and in which order, depends on neither.
bool plan_residual_unit(const ResidualUnitSizes& sizes, int64_t shared_limit, int processors,
                        ResidualUnitPlan* plan);

}  // namespace fastcodec
