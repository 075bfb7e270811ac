// residual_unit: x + conv1(act(conv_k(act(x)))), one kernel after one that packs the weights.
//
// Where they fit, both weights stay in the shared memory of a block for all of its tiles, and two
// teams of warps take turns on their own: while one loads and activates the other multiplies.
// Elsewhere the weights are read from global memory in the order of the sums, which is the same.
// No sum is split: it is made by one warp, tap after tap, channel after channel.
#include "residual_unit.cuh"
#include "residual_unit_tile.h"

namespace fastcodec {
namespace {

using unit::Bf16;
using unit::Matrix;
using unit::Tf32;
using unit::Unit;

constexpr int kMostThreads = 256;
constexpr int kPackThreads = 128;

template <class Kind>
__global__ void _pack_kernel(Matrix first, Matrix second, const float* alpha,
                             const float* point_alpha, uint32_t* packed) {
  const int64_t ahead = unit::quads<Kind>(first), all = ahead + unit::quads<Kind>(second);
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index < all) {
    const bool behind = index >= ahead;
    unit::store(packed + 4 * index,
                unit::pack<Kind>(behind ? second : first, behind ? index - ahead : index));
    return;
  }
  const int64_t channel = index - all;
  const int64_t c = first.inputs, h = first.outputs;
  if (channel >= c + h || alpha == nullptr) return;
  const bool hidden = channel >= c;
  const unit::Curve curve = unit::curve_of(hidden ? point_alpha[channel - c] : alpha[channel]);
  uint32_t* row = packed + 4 * all + (hidden ? 3 * c + channel - c : channel);
  const int64_t count = hidden ? h : c;
  row[0] = unit::bits_of(curve.turns);
  row[count] = unit::bits_of(curve.lost);
  row[2 * count] = unit::bits_of(curve.inverse);
}

// Waits for the warps of a team. Barrier 0 is __syncthreads'.
__device__ __forceinline__ void meet(int team, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(threads) : "memory");
}

template <class Kind, int kTiles, int kRows, bool kStationary>
__global__ void __launch_bounds__(kMostThreads, 1) _unit_kernel(Unit u, ResidualUnitPlan plan) {
  extern __shared__ uint4 memory[];
  uint32_t* shared = reinterpret_cast<uint32_t*>(memory);
  const uint32_t* curves = u.packed + plan.weight_words;
  const uint32_t* weights = u.packed;
  if constexpr (kStationary) {
    for (int64_t i = 4 * threadIdx.x; i < plan.weight_words; i += 4 * blockDim.x) {
      unit::store(shared + i, unit::load(u.packed + i));
    }
    weights = shared;
    shared += plan.weight_words;
    __syncthreads();
  }
  const int threads = 32 * plan.warps, team = threadIdx.x / threads;
  const int thread = threadIdx.x % threads;
  uint32_t* tile = shared + team * plan.tile_words;
  const int rows = plan.tile_frames + (u.taps - 1) * u.dilation;
  const int64_t tiles = (u.frames + plan.tile_frames - 1) / plan.tile_frames;
  const int64_t step = static_cast<int64_t>(gridDim.x) * plan.teams;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * plan.teams + team; i < tiles * u.batch;
       i += step) {
    const int64_t item = i / tiles, first = i % tiles * plan.tile_frames;
    unit::stage<Kind>(u, curves, tile, item, first, rows, thread, threads);
    meet(team, threads);
    unit::warp_tile<Kind, kTiles, kRows>(u, tile, weights, curves, item, first,
                                         thread / 32 * 16 * kRows);
    meet(team, threads);
  }
}

template <class Kind, int kTiles, int kRows, bool kStationary>
cudaError_t launch(const Unit& u, const ResidualUnitPlan& plan, cudaStream_t stream) {
  const auto kernel = _unit_kernel<Kind, kTiles, kRows, kStationary>;
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  kernel<<<static_cast<int>(plan.blocks), 32 * plan.warps * plan.teams, plan.shared_bytes,
           stream>>>(u, plan);
  return cudaGetLastError();
}

// The code for H hidden channels.
template <int H>
cudaError_t launch_hidden(const Unit& u, const ResidualUnitPlan& plan, bool medium,
                          cudaStream_t stream) {
  constexpr int kTiles = H / 8;
  if (!medium) return launch<Tf32, kTiles, residual_unit_rows16(false, H), false>(u, plan, stream);
  constexpr int kRows = residual_unit_rows16(true, H);
  if constexpr (H <= kMostStationaryHidden) {
    if (plan.stationary) return launch<Bf16, kTiles, kRows, true>(u, plan, stream);
  }
  return launch<Bf16, kTiles, kRows, false>(u, plan, stream);
}

}  // namespace

bool plan_residual_unit_here(const ResidualUnitSizes& sizes, ResidualUnitPlan* plan) {
  int device = 0, shared = 0, processors = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) !=
          cudaSuccess ||
      cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return false;
  }
  return plan_residual_unit(sizes, shared, processors, plan);
}

cudaError_t residual_unit(const ResidualUnitArguments& a, const ResidualUnitSizes& s,
                          const ResidualUnitPlan& plan, void* packed, cudaStream_t stream) {
  if (s.batch == 0 || s.frames == 0) return cudaSuccess;
  const Matrix first{a.weight, s.channels, s.hidden, s.taps, false};
  const Matrix second{a.point_weight, s.hidden, s.channels, 1, true};
  const int64_t items = plan.weight_words / 4 + s.channels + s.hidden;
  const int blocks = static_cast<int>((items + kPackThreads - 1) / kPackThreads);
  uint32_t* words = static_cast<uint32_t*>(packed);
  const auto pack = s.medium ? _pack_kernel<Bf16> : _pack_kernel<Tf32>;
  pack<<<blocks, kPackThreads, 0, stream>>>(first, second, a.alpha, a.point_alpha, words);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  const Unit u{a.x,        a.bias,    a.point_bias, words,      a.out,    s.batch,
               s.frames,   a.x_batch, a.x_frame,    s.channels, s.hidden, s.taps,
               s.dilation, a.left,    a.activation, a.slope};
  switch (s.hidden) {
    case 32:
      return launch_hidden<32>(u, plan, s.medium, stream);
    case 64:
      return launch_hidden<64>(u, plan, s.medium, stream);
    case 96:
      return launch_hidden<96>(u, plan, s.medium, stream);
    case 128:
      return launch_hidden<128>(u, plan, s.medium, stream);
    case 192:
      return launch_hidden<192>(u, plan, s.medium, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fastcodec
