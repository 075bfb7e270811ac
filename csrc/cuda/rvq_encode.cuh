// Launcher of rvq_encode.cu, and what a block keeps in shared memory.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cuda/plan.h"

namespace fastcodec {

struct RvqEncode {
  const float* x;
  int64_t x_batch, x_channel, x_frame;  // strides
  const float* codebooks;               // [K, N, D]
  float* offsets;                       // [K, padded] scratch: -|e|^2 / 2, -inf behind the words
  int64_t* codes;                       // [B, K, T]
  int64_t rows, frames;
  int features, words, stages;
  int padded, slice;  // words of the offsets, and of a block's share of a codebook
};

constexpr int kRvqCandidates = 1024;  // of a block of the codebook; more: all words are candidates

struct RvqShared {  // offsets in bytes, and the size
  int64_t residual, offsets, lengths, lowest, keys, candidates, winners, counts, bytes;
};

__host__ __device__ inline constexpr RvqShared rvq_encode_shared(int rows, int words, int stride) {
  RvqShared s{};  // the codebook's two buffers are first
  s.residual = int64_t{8} * words * stride;
  s.offsets = s.residual + int64_t{4} * rows * stride;
  s.lengths = s.offsets + int64_t{8} * words;
  s.lowest = s.lengths + int64_t{4} * rows;
  s.keys = s.lowest + int64_t{4} * rows * (words / 16);
  s.candidates = s.keys + int64_t{16} * rows;
  s.winners = s.candidates + int64_t{4} * kRvqCandidates;
  s.counts = s.winners + int64_t{4} * rows;
  s.bytes = s.counts + 16;
  return s;
}

// How many words of offsets a stage has, and a block of each share.
inline constexpr int64_t rvq_slice(int64_t words, const RvqPlan& plan) {
  const int64_t of_all = static_cast<int64_t>(plan.launch.cluster) * plan.words;
  return (words + of_all - 1) / of_all * plan.words;
}

cudaError_t rvq_encode(RvqEncode p, const RvqPlan& plan, cudaStream_t stream);

}  // namespace fastcodec
