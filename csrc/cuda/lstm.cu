// A layer of an LSTM: the input product of all frames, then the recurrence.
//
// Where there are clusters the recurrence is one launch: a cluster has up to four rows of the batch
// and shares out the hidden units; each block keeps the weights of its units' gates on chip, partly
// in registers, and writes its part of h into the memory of all. One step waits for the cluster
// once. Elsewhere each frame is a launch that reads the weights from L2: a barrier of all blocks
// would need them all to run at once.
//
// A gate's sum: four lanes take every fourth quad of its columns each, one product after the other,
// then the lanes are added. It depends on H alone. Medium rounds operands to bfloat16 and
// multiplies them in float32, as exactly as a tensor core would.
#include "cuda/device.cuh"
#include "cuda/lstm.cuh"

namespace fastcodec {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kUnitLanes = 4 * kLstmLanes;
constexpr int kPersistentThreads = kUnitLanes * kLstmUnits;
constexpr int kTile = 64, kDepth = 16, kTileThreads = 256, kTileRow = kTile + 4;

__device__ __forceinline__ float4 quad(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

// To bfloat16, to the nearest with ties to even.
__device__ __forceinline__ float rounded(float x, bool medium) {
  const uint32_t bits = __float_as_uint(x);
  const uint32_t up = bits + 0x7fff + (bits >> 16 & 1);
  const uint32_t kept = (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : up;
  return medium ? __uint_as_float(kept & 0xffff0000u) : x;
}

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// gates[row][unit][gate], 64 x 64 a block and 4 x 4 a thread, sums in the order of the columns.
__global__ void __launch_bounds__(kTileThreads) _inputs_kernel(LstmLayer p) {
  float* a = reinterpret_cast<float*>(shared_memory());  // [depth][row of x]
  float* w = a + kDepth * kTileRow;                      // [depth][gate]
  const int64_t hidden = p.hidden, gates = 4 * hidden, rows = p.batch * p.frames;
  const int64_t columns = (gates + kTile - 1) / kTile;
  const int64_t row0 = static_cast<int64_t>(blockIdx.x) / columns * kTile;
  const int64_t gate0 = static_cast<int64_t>(blockIdx.x) % columns * kTile;
  const int tid = threadIdx.x, r0 = tid / 16 * 4, g0 = tid % 16 * 4;
  const int at = tid / 4, depth = tid % 4 * 4;  // what this thread fetches: 4 of a row
  const int64_t row = row0 + at, gate = gate0 + at;
  const float* x = p.x + row / p.frames * p.x_batch + row % p.frames * p.x_frame;
  const float* weight = p.weight_ih + (gate % 4 * hidden + gate / 4) * hidden;
  float sums[4][4] = {};
  for (int64_t k = 0; k < hidden; k += kDepth) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t c = k + depth + i;
      const bool inside = c < hidden;
      a[(depth + i) * kTileRow + at] =
          inside && row < rows ? rounded(x[c * p.x_channel], p.medium) : 0.0f;
      w[(depth + i) * kTileRow + at] = inside && gate < gates ? rounded(weight[c], p.medium) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDepth; ++d) {
      const float4 left = quad(a + d * kTileRow + r0), right = quad(w + d * kTileRow + g0);
      const float l[4] = {left.x, left.y, left.z, left.w};
      const float r[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(l[i], r[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
  const int64_t unit = (gate0 + g0) / 4;  // a thread has the four gates of one unit
  if (unit >= hidden) return;
  float bias[4];
  for (int j = 0; j < 4; ++j) bias[j] = p.bias_ih[j * hidden + unit] + p.bias_hh[j * hidden + unit];
  for (int i = 0; i < 4 && row0 + r0 + i < rows; ++i) {
    *reinterpret_cast<float4*>(p.gates + (row0 + r0 + i) * gates + 4 * unit) = make_float4(
        sums[i][0] + bias[0], sums[i][1] + bias[1], sums[i][2] + bias[2], sums[i][3] + bias[3]);
  }
}

// The part of a sum that columns column .. column + 3 add, of each row of the batch.
template <int kRows>
__device__ __forceinline__ void add(float (&sums)[kRows], float4 w, const float* h, int row) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    const float4 x = quad(h + m * row);
    sums[m] = fmaf(w.w, x.w, fmaf(w.z, x.z, fmaf(w.y, x.y, fmaf(w.x, x.x, sums[m]))));
  }
}

__device__ __forceinline__ float4 weights(const LstmLayer& p, int64_t gate, int64_t unit,
                                          int64_t column) {
  const int64_t hidden = p.hidden;
  float w[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const bool inside = unit < hidden && column + i < hidden;
    const int64_t at = (gate * hidden + unit) * hidden + column + i;
    w[i] = inside ? rounded(p.weight_hh[at], p.medium) : 0.0f;
  }
  return make_float4(w[0], w[1], w[2], w[3]);
}

// All of a unit's lanes get the four gates' sums of the row that is theirs: lane m has row m.
template <int kRows>
__device__ __forceinline__ float4 gates_of(float (&sums)[kRows], int lane) {
  float mine[4] = {};
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    sums[m] += __shfl_xor_sync(kAll, sums[m], 1);
    sums[m] += __shfl_xor_sync(kAll, sums[m], 2);
#pragma unroll
    for (int gate = 0; gate < 4; ++gate) {
      const float sum = __shfl_sync(kAll, sums[m], lane / kUnitLanes * kUnitLanes + 4 * gate);
      mine[gate] = lane % kUnitLanes == m ? sum : mine[gate];
    }
  }
  return make_float4(mine[0], mine[1], mine[2], mine[3]);
}

// The new h, from torch's order i, f, g, o.
__device__ __forceinline__ float cell(float4 sum, float4 input, float* c) {
  const float keep = sigmoid(sum.y + input.y) * *c;
  *c = fmaf(sigmoid(sum.x + input.x), tanhf(sum.z + input.z), keep);
  return sigmoid(sum.w + input.w) * tanhf(*c);
}

__device__ __forceinline__ void write_out(const LstmLayer& p, int64_t b, int64_t t, int64_t unit,
                                          float h) {
  if (p.skip != nullptr) {
    h += p.skip[b * p.skip_batch + t * p.skip_frame + unit * p.skip_channel];
  }
  p.out[(b * p.frames + t) * p.hidden + unit] = h;
}

template <int kRows, bool kCluster>
__global__ void __launch_bounds__(kPersistentThreads, 1)
    _recurrence_kernel(LstmLayer p, LstmPlan plan) {
  const int quads = static_cast<int>(lstm_quads(p.hidden)), width = quads * kUnitLanes;
  constexpr int kHeld = lstm_held(kRows);
  float* h = reinterpret_cast<float*>(shared_memory());  // [even or odd frame][row][width]
  const int state = kRows * width;
  float* kept = h + 2 * state + 4 * threadIdx.x;  // [quad][thread][4]
  const int lane = threadIdx.x % 32, in_unit = lane % kUnitLanes, gate = in_unit / kLstmLanes;
  const int rank = kCluster ? cluster_rank() : 0, local = threadIdx.x / kUnitLanes;
  const int64_t unit = local < plan.units ? int64_t{1} * rank * plan.units + local : p.hidden;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) / plan.launch.cluster * kRows;
  const int column = 4 * (in_unit % kLstmLanes);
  float4 held[kHeld];
#pragma unroll
  for (int i = 0; i < kHeld; ++i) held[i] = weights(p, gate, unit, kUnitLanes * i + column);
  for (int i = kHeld; i < quads; ++i) {
    *reinterpret_cast<float4*>(kept + (i - kHeld) * 4 * blockDim.x) =
        weights(p, gate, unit, kUnitLanes * i + column);
  }
  for (int i = threadIdx.x; i < kRows * width; i += blockDim.x) {
    const int64_t row = first_row + i / width;
    const bool inside = row < p.batch && i % width < p.hidden;
    h[i] = inside ? rounded(p.h_in[row * p.hidden + i % width], p.medium) : 0.0f;
    h[state + i] = 0.0f;
  }
  const int64_t row = first_row + in_unit;  // whose cell this lane computes
  const bool mine = in_unit < kRows && row < p.batch && unit < p.hidden;
  const int64_t at = row * p.hidden + unit;
  float c = mine ? p.c_in[at] : 0.0f, now = mine ? p.h_in[at] : 0.0f;
  const auto input = [&](int64_t t) {
    const int64_t from = ((row * p.frames + t) * p.hidden + unit) * 4;
    return mine && t < p.frames ? quad(p.gates + from) : make_float4(0, 0, 0, 0);
  };
  float4 ahead = input(0);
  const auto wait = [] {
    if constexpr (kCluster) {
      cluster_wait();
    } else {
      __syncthreads();
    }
  };
  wait();
  for (int64_t t = 0; t < p.frames; ++t) {
    const float4 in = ahead;
    ahead = input(t + 1);
    const int odd = static_cast<int>(t % 2);
    const float* from = h + odd * state + column;
    float sums[kRows] = {};
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (i < quads) add(sums, held[i], from + kUnitLanes * i, width);
    }
#pragma unroll 4
    for (int i = kHeld; i < quads; ++i) {
      add(sums, quad(kept + (i - kHeld) * 4 * blockDim.x), from + kUnitLanes * i, width);
    }
    const float4 sum = gates_of(sums, lane);
    if (mine) now = cell(sum, in, &c);
    const float next = rounded(now, p.medium);
    float* to = h + (1 - odd) * state;
    if (kCluster && in_unit < plan.launch.cluster) to = in_block(to, in_unit);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      const float value = __shfl_sync(kAll, next, lane / kUnitLanes * kUnitLanes + m);
      if (unit < p.hidden && in_unit < plan.launch.cluster) to[m * width + unit] = value;
    }
    if (mine) write_out(p, row, t, unit, now);
    wait();
  }
  if (mine) p.h_out[at] = now, p.c_out[at] = c;
}

// One frame; the same sums.
template <int kRows>
__global__ void __launch_bounds__(128) _step_kernel(LstmLayer p, LstmPlan plan, int64_t t) {
  const int64_t hidden = p.hidden, blocks = (hidden + plan.units - 1) / plan.units;
  const int lane = threadIdx.x % 32, in_unit = lane % kUnitLanes, gate = in_unit / kLstmLanes;
  const int64_t unit =
      static_cast<int64_t>(blockIdx.x) % blocks * plan.units + threadIdx.x / kUnitLanes;
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) / blocks * kRows;
  const int64_t state = p.batch * hidden;
  const float* before = t == 0 ? p.h_in : p.exchange + t % 2 * state;
  float sums[kRows] = {};
  const int quads = static_cast<int>(lstm_quads(hidden));
#pragma unroll 2
  for (int i = 0; i < quads; ++i) {
    const int64_t column = kUnitLanes * i + 4 * (in_unit % kLstmLanes);
    const float4 w = weights(p, gate, unit, column);
    float h[kRows][4];
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const bool inside = first_row + m < p.batch && column + j < hidden;
        h[m][j] = inside ? rounded(before[(first_row + m) * hidden + column + j], p.medium) : 0.0f;
      }
      sums[m] =
          fmaf(w.w, h[m][3], fmaf(w.z, h[m][2], fmaf(w.y, h[m][1], fmaf(w.x, h[m][0], sums[m]))));
    }
  }
  const float4 sum = gates_of(sums, lane);
  const int64_t row = first_row + in_unit;
  if (in_unit >= kRows || row >= p.batch || unit >= hidden) return;
  const int64_t at = row * hidden + unit;
  float c = t == 0 ? p.c_in[at] : p.c_out[at];
  const float now = cell(sum, quad(p.gates + ((row * p.frames + t) * hidden + unit) * 4), &c);
  p.c_out[at] = c, p.h_out[at] = now;
  p.exchange[(t + 1) % 2 * state + at] = now;
  write_out(p, row, t, unit, now);
}

template <int kRows>
cudaError_t recurrence(const LstmLayer& p, const LstmPlan& plan, cudaStream_t stream) {
  if (plan.persistent != 0) {
    const auto kernel = plan.launch.cluster > 1 ? _recurrence_kernel<kRows, true>
                                                : _recurrence_kernel<kRows, false>;
    if (plan.launch.cluster <= 8 || can_run(plan.launch, kernel)) {
      return launch(plan.launch, stream, kernel, p, plan);
    }
    return recurrence<kRows>(p, plan_lstm_steps(p.batch, p.hidden), stream);
  }
  for (int64_t t = 0; t < p.frames; ++t) {
    const cudaError_t error = launch(plan.launch, stream, _step_kernel<kRows>, p, plan, t);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t lstm_layer(const LstmLayer& p, const LstmPlan& plan, cudaStream_t stream) {
  const int64_t row_tiles = (p.batch * p.frames + kTile - 1) / kTile;
  const int64_t gate_tiles = (int64_t{4} * p.hidden + kTile - 1) / kTile;
  constexpr int64_t kBytes = int64_t{4} * 2 * kDepth * kTileRow;
  const Launch inputs = {row_tiles * gate_tiles, kTileThreads, 1, kBytes};
  const cudaError_t error = launch(inputs, stream, _inputs_kernel, p);
  if (error != cudaSuccess) return error;
  if (plan.rows == 1) return recurrence<1>(p, plan, stream);
  return plan.rows == 2 ? recurrence<2>(p, plan, stream) : recurrence<4>(p, plan, stream);
}

}  // namespace fastcodec
