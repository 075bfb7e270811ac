// Residual vector quantisation: all stages in one launch, the residual in shared memory.
//
// argmin |x - e|^2 = argmax x.e - |e|^2 / 2, the first where equal. A cluster has a few rows; its
// blocks share out the words of a stage, find each row's best among their own and tell each other.
// Tensor cores give all scores in TF32 with a bound of their error; only words that may still be
// the best get their exact score, a float32 sum whose order depends on D alone. So the codes are
// those of a full float32 search, whatever the tiles. Where clusters do not exist one block has all
// the words.
#include "cuda/device.cuh"
#include "cuda/rvq_encode.cuh"

namespace fastcodec {
namespace {

using Key = unsigned long long;

constexpr int kThreads = 256;
constexpr unsigned kAll = 0xffffffffu;
constexpr int kGroup = 8;  // lanes that share an exact score

// Orders scores, NaN below all, then the lower word first.
__device__ __forceinline__ Key key_of(float score, int word) {
  const uint32_t bits = __float_as_uint(score + 0.0f);  // -0 is 0
  const uint32_t rank = score != score ? 0 : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<Key>(rank) << 32 | (kAll - static_cast<uint32_t>(word));
}
__device__ __forceinline__ int word_of(Key key) {
  return static_cast<int>(kAll - static_cast<uint32_t>(key));
}
__device__ __forceinline__ float score_of(Key key) {  // NaN, and no word yet: -inf
  const uint32_t rank = static_cast<uint32_t>(key >> 32);
  if (rank == 0) return -INFINITY;
  return __uint_as_float(rank & 0x80000000u ? rank & 0x7fffffffu : ~rank);
}

__device__ __forceinline__ float4 quad(const float* p) {
  return *reinterpret_cast<const float4*>(p);
}

template <typename T>
__device__ __forceinline__ T sum_of_group(T value) {
  for (int lanes = kGroup / 2; lanes > 0; lanes /= 2) {
    value += __shfl_xor_sync(kAll, value, lanes);
  }
  return value;
}

// One warp a word: -|e|^2 / 2, summed in float64.
__global__ void _offsets_kernel(RvqEncode p) {
  const int64_t warps = blockDim.x / 32, lane = threadIdx.x % 32;
  const int64_t at = blockIdx.x * warps + threadIdx.x / 32;
  if (at >= static_cast<int64_t>(p.stages) * p.padded) return;
  const int64_t stage = at / p.padded, word = at % p.padded;
  if (word >= p.words) {
    if (lane == 0) p.offsets[at] = -INFINITY;
    return;
  }
  const float* e = p.codebooks + (stage * p.words + word) * p.features;
  double sum = 0;
  for (int64_t d = lane; d < p.features; d += 32) sum += static_cast<double>(e[d]) * e[d];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
  if (lane == 0) p.offsets[at] = static_cast<float>(-0.5 * sum);
}

// What a block works on.
struct Block {
  float *memory, *residual, *all_offsets, *lengths, *lowest;
  Key* all_keys;
  int *candidates, *winners, *counts;
  int warp, lane, warps, rank, stride, sixteens, words;
  int64_t first_row;
  int rows, live;  // of the tile, and how many of them there are
  bool quads;      // features can be read by fours

  __device__ Block(const RvqEncode& p, const RvqPlan& plan, int cluster_rank) {
    char* bytes = shared_memory();
    const RvqShared at = rvq_encode_shared(plan.rows, plan.words, plan.stride);
    memory = reinterpret_cast<float*>(bytes);
    residual = reinterpret_cast<float*>(bytes + at.residual);
    all_offsets = reinterpret_cast<float*>(bytes + at.offsets);
    lengths = reinterpret_cast<float*>(bytes + at.lengths);
    lowest = reinterpret_cast<float*>(bytes + at.lowest);
    all_keys = reinterpret_cast<Key*>(bytes + at.keys);
    candidates = reinterpret_cast<int*>(bytes + at.candidates);
    winners = reinterpret_cast<int*>(bytes + at.winners);
    counts = reinterpret_cast<int*>(bytes + at.counts);
    warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    rank = cluster_rank, stride = plan.stride, sixteens = (p.features + 15) / 16;
    words = plan.words, rows = plan.rows;
    first_row = static_cast<int64_t>(blockIdx.x) / plan.launch.cluster * rows;
    live = static_cast<int>(p.rows - first_row < rows ? p.rows - first_row : rows);
    quads = p.features % 4 == 0;
  }

  __device__ float* codebook(int buffer) const { return memory + buffer * words * stride; }
  __device__ float* offsets(int buffer) const { return all_offsets + buffer * words; }
  // Of even and odd stages: the other blocks read the last one's for a while.
  __device__ Key* keys(int stage) const { return all_keys + stage % 2 * rows; }

  // The rows, with zeros behind their features and for rows that are not there.
  __device__ void load_rows(const RvqEncode& p) const {
    const int width = 16 * sixteens;
    for (int i = threadIdx.x; i < rows * width; i += blockDim.x) {
      const bool by_rows = p.x_frame < p.x_channel;
      const int r = by_rows ? i % rows : i / width, d = by_rows ? i / rows : i % width;
      const int64_t row = first_row + r;
      float value = 0;
      if (r < live && d < p.features) {
        value = p.x[row / p.frames * p.x_batch + row % p.frames * p.x_frame + d * p.x_channel];
      }
      residual[r * stride + d] = value;
    }
  }

  // Starts to fetch a block of a stage's words; zeros behind the features and the words.
  __device__ void fetch(const RvqEncode& p, int stage, int first, int buffer) const {
    const int64_t begin = static_cast<int64_t>(rank) * p.slice + first;
    for (int w = warp; w < words; w += warps) {
      const float* from = p.codebooks + (int64_t{1} * stage * p.words + begin + w) * p.features;
      float* to = codebook(buffer) + w * stride;
      const int count = begin + w < p.words ? p.features : 0;
      if (quads) {
        for (int d = 4 * lane; d < 16 * sixteens; d += 128) {
          if (d < count) {
            copy_async(to + d, from + d);
          } else {
            *reinterpret_cast<float4*>(to + d) = make_float4(0, 0, 0, 0);
          }
        }
      } else {
        for (int d = lane; d < 16 * sixteens; d += 32) to[d] = d < count ? from[d] : 0.0f;
      }
    }
    for (int w = 4 * threadIdx.x; w < words; w += 4 * blockDim.x) {
      copy_async(offsets(buffer) + w, p.offsets + int64_t{1} * stage * p.padded + begin + w);
    }
  }

  // Subtracts the chosen words, or none before the first stage, and measures what is left.
  __device__ void reduce(const RvqEncode& p, int stage) const {
    const int group = threadIdx.x / kGroup, in_group = lane % kGroup;
    for (int r = group; r < rows; r += blockDim.x / kGroup) {
      float* row = residual + r * stride;
      const bool chosen = stage >= 0 && r < live;
      const float* e = p.codebooks;
      if (chosen) e += (int64_t{1} * stage * p.words + winners[r]) * p.features;
      float square = 0;
      for (int d = 4 * in_group; d < 16 * sixteens; d += 4 * kGroup) {
        float4 x = quad(row + d);
        if (chosen && quads && d < p.features) {
          const float4 c = quad(e + d);
          x = make_float4(x.x - c.x, x.y - c.y, x.z - c.z, x.w - c.w);
        } else if (chosen && d < p.features) {
          x.x -= e[d];
          if (d + 1 < p.features) x.y -= e[d + 1];
          if (d + 2 < p.features) x.z -= e[d + 2];
          if (d + 3 < p.features) x.w -= e[d + 3];
        }
        if (chosen) *reinterpret_cast<float4*>(row + d) = x;
        square = fmaf(x.x, x.x, fmaf(x.y, x.y, fmaf(x.z, x.z, fmaf(x.w, x.w, square))));
      }
      square = sum_of_group(square);
      if (in_group == 0) lengths[r] = sqrtf(square);
    }
  }

  // x.e in float32, on all lanes of a group: each sums every eighth quad, then they are added.
  __device__ float exact(int row, int word, int buffer) const {
    const float *x = residual + row * stride, *e = codebook(buffer) + word * stride;
    float sum = 0;
    for (int d = 4 * (lane % kGroup); d < 16 * sixteens; d += 4 * kGroup) {
      const float4 a = quad(x + d), b = quad(e + d);
      sum = fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
    }
    return sum_of_group(sum);
  }
};

// Each row's best words of the block of the codebook that starts at `first`, into `keys`.
template <int kTiles>
__device__ __forceinline__ void search(const Block& b, const RvqEncode& p, int first, int step,
                                       Key* keys) {
  const int g = b.lane / 4, q = b.lane % 4, buffer = step % 2;
  float sums[kTiles][2][4] = {};
  const float* word = b.codebook(buffer) + (16 * b.warp + g) * b.stride + 4 * q;
  const float* row = b.residual + g * b.stride + 4 * q;
  for (int s = 0; s < b.sixteens; ++s, word += 16, row += 16) {
    // Which of 16 features a lane has is free, if it is the same of rows and words.
    const float4 e[2] = {quad(word), quad(word + 8 * b.stride)};
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      const float4 low = quad(row + 16 * m * b.stride), high = quad(row + (16 * m + 8) * b.stride);
      const float x[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        multiply_tf32(sums[m][n], x[0], {e[n].x, e[n].y});
        multiply_tf32(sums[m][n], x[1], {e[n].z, e[n].w});
      }
    }
  }
  // |TF32 score - exact score| <= |x| |e| relative + what the sum with the offset rounds off. An
  // operand loses less than 2^-10 of itself; 2^-21 D is four times what both sums round off.
  const float relative = 0x1.01p-9f + p.features * 0x1p-21f;
  constexpr float kOffset = 0x1p-21f, kTiny = 1e-35f, kSmall = 1e-18f;  // subnormal numbers too
  float offset[4], norm[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    offset[i] = b.offsets(buffer)[16 * b.warp + i / 2 * 8 + 2 * q + i % 2];
    norm[i] = sqrtf(-2.0f * offset[i]) + kSmall;
  }
  const auto bound = [&](float length, int i) {
    return fmaf(norm[i], fmaf(length + kSmall, relative, kOffset * norm[i]), kTiny);
  };
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = 16 * m + 8 * half + g;
      float low = -INFINITY;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = sums[m][i / 2][2 * half + i % 2];
        score += offset[i];
        low = fmaxf(low, score - bound(b.lengths[r], i));
      }
      low = fmaxf(low, __shfl_xor_sync(kAll, low, 1));
      low = fmaxf(low, __shfl_xor_sync(kAll, low, 2));
      if (q == 0) b.lowest[b.warp * b.rows + r] = low;
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) b.counts[(step + 1) % 2] = 0;
  const int begin = b.rank * p.slice + first;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int r = 16 * m + 8 * half + g;
      if (r >= b.live) continue;
      float least = score_of(keys[r]);
      for (int w = 0; w < b.warps; ++w) least = fmaxf(least, b.lowest[w * b.rows + r]);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = 16 * b.warp + i / 2 * 8 + 2 * q + i % 2;
        const float high = sums[m][i / 2][2 * half + i % 2] + bound(b.lengths[r], i);
        if (high < least || begin + n >= p.words) continue;  // NaN stays
        const int slot = atomicAdd(b.counts + step % 2, 1);
        if (slot < kRvqCandidates) b.candidates[slot] = r << 16 | n;
      }
    }
  }
  __syncthreads();
  const int found = b.counts[step % 2];
  const bool listed = found <= kRvqCandidates;
  const int all = listed ? found : b.live * b.words, groups = blockDim.x / kGroup;
  for (int i = b.warp * (32 / kGroup); i < all; i += groups) {  // the same for all of a warp
    const int mine = i + b.lane / kGroup, item = mine < all ? mine : 0;
    const int at = listed ? b.candidates[item] : item / b.words << 16 | item % b.words;
    const int r = at >> 16, n = at & 0xffff;
    const float score = b.exact(r, n, buffer) + b.offsets(buffer)[n];
    if (mine < all && b.lane % kGroup == 0 && begin + n < p.words) {
      atomicMax(keys + r, key_of(score, begin + n));
    }
  }
}

template <int kTiles, bool kCluster>
__global__ void __launch_bounds__(kThreads, 1) _encode_kernel(RvqEncode p, RvqPlan plan) {
  const Block b(p, plan, kCluster ? cluster_rank() : 0);
  b.load_rows(p);
  for (int i = threadIdx.x; i < 2 * b.rows; i += blockDim.x) b.all_keys[i] = 0;
  if (threadIdx.x < 2) b.counts[threadIdx.x] = 0;
  const int blocks = p.slice / b.words, steps = p.stages * blocks;
  b.fetch(p, 0, 0, 0);
  __syncthreads();
  b.reduce(p, -1);
  for (int step = 0; step < steps; ++step) {
    const int stage = step / blocks, block = step % blocks, next = step + 1;
    wait_for_copies();
    __syncthreads();  // and nobody reads the other buffer any more
    if (next < steps) b.fetch(p, next / blocks, next % blocks * b.words, next % 2);
    Key* keys = b.keys(stage);
    search<kTiles>(b, p, block * b.words, step, keys);
    if (block + 1 < blocks) continue;
    if constexpr (kCluster) {
      cluster_wait();
    } else {
      __syncthreads();
    }
    for (int r = threadIdx.x; r < b.live; r += blockDim.x) {
      Key best = keys[r];
      if constexpr (kCluster) {
#pragma unroll 8
        for (int rank = 0; rank < plan.launch.cluster; ++rank) {
          const Key theirs = in_block(keys, rank)[r];
          best = theirs > best ? theirs : best;
        }
      }
      b.winners[r] = word_of(best);
      b.keys(stage + 1)[r] = 0;
      const int64_t row = b.first_row + r;
      if (b.rank == 0) {
        p.codes[(row / p.frames * p.stages + stage) * p.frames + row % p.frames] = word_of(best);
      }
    }
    __syncthreads();
    if (next < steps) b.reduce(p, stage);
  }
  if constexpr (kCluster) cluster_wait();  // a block's memory goes with it
}

template <bool kCluster>
cudaError_t encode(const RvqEncode& p, const RvqPlan& plan, cudaStream_t stream) {
  using Kernel = void (*)(RvqEncode, RvqPlan);
  constexpr Kernel kByTiles[] = {_encode_kernel<1, kCluster>, _encode_kernel<2, kCluster>,
                                 _encode_kernel<3, kCluster>, _encode_kernel<4, kCluster>};
  return launch(plan.launch, stream, kByTiles[plan.rows / 16 - 1], p, plan);
}

}  // namespace

cudaError_t rvq_encode(RvqEncode p, const RvqPlan& plan, cudaStream_t stream) {
  p.slice = static_cast<int>(rvq_slice(p.words, plan));
  p.padded = p.slice * plan.launch.cluster;
  constexpr int kWarps = kThreads / 32;
  const int64_t blocks = (int64_t{1} * p.stages * p.padded + kWarps - 1) / kWarps;
  const cudaError_t error = launch({blocks, kThreads, 1, 0}, stream, _offsets_kernel, p);
  if (error != cudaSuccess) return error;
  return plan.launch.cluster > 1 ? encode<true>(p, plan, stream) : encode<false>(p, plan, stream);
}

}  // namespace fastcodec
