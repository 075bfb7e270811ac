// Sum of the code words of a frame, stage by stage, in registers.
//
// The words lie all over tables that do not fit L2; each is fetched some words ahead.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::RvqDecode;

constexpr int kVectors = 8;    // features of one pass
constexpr int64_t kAhead = 8;  // words between a fetch and its use
constexpr int64_t kLine = 16;  // floats of a cache line

// Features [first, first + count) of one frame.
template <bool kFull>
void decode_part(const RvqDecode& p, const int64_t* codes, const int64_t* next, int64_t first,
                 int64_t count, float* out) {
  V sums[kVectors] = {};
  const int full = static_cast<int>(count / kLanes), tail = static_cast<int>(count % kLanes);
  const float* words = p.codebooks + first;
  for (int64_t k = 0; k < p.stages; ++k, words += p.codewords * p.features) {
    const int64_t stage = k + kAhead < p.stages ? k + kAhead : k + kAhead - p.stages;
    const int64_t* from = stage > k ? codes : next;
    if (stage < p.stages) {
      const int64_t soon = std::max<int64_t>(from[stage * p.by_stage], 0);
      const float* ahead = words + ((stage - k) * p.codewords + soon) * p.features;
      for (int64_t d = 0; d < count; d += kLine) __builtin_prefetch(ahead + d);
    }
    const int64_t word = codes[k * p.by_stage];
    if (word < 0) continue;
    const float* e = words + word * p.features;
    if constexpr (kFull) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sums[v] = sums[v] + load(e + v * kLanes);
    } else {
      for (int v = 0; v < full; ++v) sums[v] = sums[v] + load(e + v * kLanes);
      if (tail > 0) sums[full] = sums[full] + load_part(e + full * kLanes, tail);
    }
  }
  for (int v = 0; v < full; ++v) store(out + v * kLanes, sums[v]);
  if (tail > 0) store_part(out + full * kLanes, sums[full], tail);
}

}  // namespace

void rvq_decode(const RvqDecode& p, int64_t batch, int64_t begin, int64_t end) {
  constexpr int64_t kPart = kVectors * kLanes;
  const int64_t* codes = p.codes + batch * p.by_batch;
  for (int64_t t = begin; t < end; ++t) {
    const int64_t* now = codes + t * p.by_frame;
    const int64_t* next = codes + std::min(t + 1, end - 1) * p.by_frame;
    float* out = p.out + (batch * p.frames + t) * p.features;
    for (int64_t first = 0; first < p.features; first += kPart) {
      const int64_t count = std::min(p.features - first, kPart);
      if (count == kPart) {
        decode_part<true>(p, now, next, first, count, out + first);
      } else {
        decode_part<false>(p, now, next, first, count, out + first);
      }
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
