// Runs a residual unit as its plan has it, with the kernel's own arithmetic, on the CPU.
#include <type_traits>
#include <utility>
#include <vector>

#include "cuda/residual_unit_plan.h"
#include "cuda/residual_unit_tile.h"

namespace {

using namespace fastcodec;
using unit::Matrix;
using unit::Unit;

template <class Kind>
std::vector<uint32_t> packed(const Matrix& first, const Matrix& second, const float* alpha,
                             const float* point_alpha) {
  std::vector<uint32_t> words;
  for (const Matrix& m : {first, second}) {
    for (int64_t i = 0; i < unit::quads<Kind>(m); ++i) {
      const unit::Quad q = unit::pack<Kind>(m, i);
      words.insert(words.end(), q.w, q.w + 4);
    }
  }
  for (const auto& [of, count] : {std::pair(alpha, first.inputs), {point_alpha, first.outputs}}) {
    std::vector<uint32_t> rows[3];
    for (int c = 0; c < count; ++c) {
      const unit::Curve curve = unit::curve_of(of == nullptr ? 1.0f : of[c]);
      const float values[] = {curve.turns, curve.lost, curve.inverse};
      for (int k = 0; k < 3; ++k) rows[k].push_back(unit::bits_of(values[k]));
    }
    for (const auto& row : rows) words.insert(words.end(), row.begin(), row.end());
  }
  return words;
}

// Teams and blocks one after the other; every tile is staged by all threads of its team first.
template <class Kind, int kTiles, int kRows>
void work(const Unit& u, const ResidualUnitPlan& plan) {
  std::vector<uint32_t> tile(plan.tile_words, 0x7fc07fc0);  // NaN: what is not staged shows
  const uint32_t* curves = u.packed + plan.weight_words;
  const int threads = 32 * plan.warps;
  const int rows = plan.tile_frames + (u.taps - 1) * u.dilation;
  const int64_t tiles = (u.frames + plan.tile_frames - 1) / plan.tile_frames;
  for (int64_t i = 0; i < tiles * u.batch; ++i) {
    const int64_t item = i / tiles, first = i % tiles * plan.tile_frames;
    for (int thread = 0; thread < threads; ++thread) {
      unit::stage<Kind>(u, curves, tile.data(), item, first, rows, thread, threads);
    }
    for (int warp = 0; warp < plan.warps; ++warp) {
      unit::warp_tile<Kind, kTiles, kRows>(u, tile.data(), u.packed, curves, item, first,
                                           warp * 16 * kRows);
    }
  }
}

template <class Kind>
int run(Unit u, const ResidualUnitPlan& plan, const Matrix& first, const Matrix& second,
        const float* alpha, const float* point_alpha) {
  const std::vector<uint32_t> words = packed<Kind>(first, second, alpha, point_alpha);
  if (static_cast<int64_t>(words.size()) != plan.packed_words) return -1;
  u.packed = words.data();
  constexpr bool kMedium = std::is_same_v<Kind, unit::Bf16>;
  if (u.hidden == 32) work<Kind, 4, residual_unit_rows16(kMedium, 32)>(u, plan);
  if (u.hidden == 64) work<Kind, 8, residual_unit_rows16(kMedium, 64)>(u, plan);
  if (u.hidden == 96) work<Kind, 12, residual_unit_rows16(kMedium, 96)>(u, plan);
  if (u.hidden == 128) work<Kind, 16, residual_unit_rows16(kMedium, 128)>(u, plan);
  if (u.hidden == 192) work<Kind, 24, residual_unit_rows16(kMedium, 192)>(u, plan);
  return 1;
}

}  // namespace

extern "C" int run_residual_unit(const float* x, const float* weight, const float* bias,
                                 const float* alpha, const float* point_weight,
                                 const float* point_bias, const float* point_alpha, float* out,
                                 int64_t batch, int64_t frames, int channels, int hidden, int taps,
                                 int dilation, int left, int activation, float slope, int medium,
                                 int64_t shared_limit) {
  ResidualUnitPlan plan{};
  const ResidualUnitSizes sizes{batch, frames, channels, hidden, taps, dilation, medium != 0};
  if (!plan_residual_unit(sizes, shared_limit, 4, &plan)) return 0;
  const int64_t all = frames + static_cast<int64_t>(taps - 1) * dilation;
  const Unit u{x,        bias,     point_bias, nullptr, out,      batch, frames,     all * channels,
               channels, channels, hidden,     taps,    dilation, left,  activation, slope};
  const Matrix first{weight, channels, hidden, taps, false};
  const Matrix second{point_weight, hidden, channels, 1, true};
  return medium ? run<unit::Bf16>(u, plan, first, second, alpha, point_alpha)
                : run<unit::Tf32>(u, plan, first, second, alpha, point_alpha);
}
