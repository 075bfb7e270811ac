#include "residual_unit_plan.h"

#include <algorithm>
#include <iterator>

namespace fastcodec {
namespace {

constexpr int kTeamFrames = 128;  // the most that a tile has
constexpr int kMostThreads = 256;
constexpr int64_t kMostBlocks = 1 << 30;

}  // namespace

bool plan_residual_unit(const ResidualUnitSizes& s, int64_t shared_limit, int processors,
                        ResidualUnitPlan* plan) {
  ResidualUnitPlan p{};
  const int64_t per_word = s.medium ? 2 : 1, copies = s.medium ? 1 : 2;
  const int64_t products = static_cast<int64_t>(s.taps + 1) * s.channels * s.hidden;
  p.weight_words = products * copies / per_word;
  p.packed_words = p.weight_words + 3 * (s.channels + s.hidden);
  p.rows16 = residual_unit_rows16(s.medium, s.hidden);
  const int64_t row_words = s.channels / per_word + 4;  // 4 more: no two rows begin in one bank
  const auto tile_words = [&](int warps) {
    return (16 * p.rows16 * warps + (s.taps - 1) * s.dilation) * row_words;
  };
  const int warps = kTeamFrames / (16 * p.rows16);
  const int64_t all = 4 * (p.weight_words + tile_words(warps));
  p.stationary = s.medium && s.hidden <= kMostStationaryHidden && all <= shared_limit;
  const int64_t room = shared_limit - (p.stationary ? 4 * p.weight_words : 0);
  for (p.warps = warps; 4 * tile_words(p.warps) > room; p.warps /= 2) {
    if (p.warps == 1) return false;
  }
  const int64_t teams = std::min<int64_t>(kMostThreads / (32 * p.warps), 2);
  p.teams = 4 * teams * tile_words(p.warps) <= room ? static_cast<int>(teams) : 1;
  p.tile_frames = 16 * p.rows16 * p.warps;
  p.tile_words = tile_words(p.warps);
  p.shared_bytes = shared_limit - room + 4 * p.teams * p.tile_words;
  const int64_t tiles = s.batch * ((s.frames + p.tile_frames - 1) / p.tile_frames);
  const int64_t blocks = (tiles + p.teams - 1) / p.teams;
  p.blocks = std::min(blocks, p.stationary ? std::max<int64_t>(processors, 1) : kMostBlocks);
  *plan = p;
  return true;
}

}  // namespace fastcodec

// For tests: the plan's fields in their order; 0 where there is none.
extern "C" __attribute__((visibility("default"))) int fastcodec_residual_unit_plan(
    int64_t batch, int64_t frames, int channels, int hidden, int taps, int dilation, int medium,
    int64_t shared_limit, int processors, int64_t* fields) {
  fastcodec::ResidualUnitPlan p{};
  const fastcodec::ResidualUnitSizes sizes{batch, frames,   channels,   hidden,
                                           taps,  dilation, medium != 0};
  if (!fastcodec::plan_residual_unit(sizes, shared_limit, processors, &p)) return 0;
  const int64_t values[] = {p.stationary,   p.rows16,     p.warps,        p.teams,
                            p.tile_frames,  p.tile_words, p.weight_words, p.packed_words,
                            p.shared_bytes, p.blocks};
  std::copy(std::begin(values), std::end(values), fields);
  return 1;
}
