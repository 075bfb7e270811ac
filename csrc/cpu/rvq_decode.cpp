// Sum of the code words of a frame, stage by stage.
//
// A block of frames takes one stage after the other, so that it stays in L1 while its words, spread
// over a table that does not fit L2, are fetched some frames ahead.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::RvqDecode;

constexpr int64_t kBlock = 32;
constexpr int64_t kAhead = 8;
constexpr int64_t kLine = 16;  // floats of a cache line

const int64_t* code_of(const RvqDecode& p, int64_t stage, int64_t row) {
  return p.codes + row / p.frames * p.by_batch + stage * p.by_stage + row % p.frames * p.by_frame;
}

void add(const float* e, int64_t features, float* out) {
  int64_t d = 0;
  for (; d + kLanes <= features; d += kLanes) store(out + d, load(out + d) + load(e + d));
  const int tail = static_cast<int>(features - d);
  if (tail > 0) store_part(out + d, load_part(out + d, tail) + load_part(e + d, tail), tail);
}

}  // namespace

void rvq_decode(const RvqDecode& p, int64_t row_begin, int64_t row_end) {
  for (int64_t begin = row_begin; begin < row_end; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, row_end);
    std::fill(p.out + begin * p.features, p.out + end * p.features, 0.0f);
    for (int64_t k = 0; k < p.stages; ++k) {
      const float* words = p.codebooks + k * p.codewords * p.features;
      for (int64_t row = begin; row < end; ++row) {
        if (row + kAhead < end) {
          const int64_t next = std::max<int64_t>(*code_of(p, k, row + kAhead), 0);
          const float* e = words + next * p.features;
          for (int64_t d = 0; d < p.features; d += kLine) __builtin_prefetch(e + d);
        }
        const int64_t word = *code_of(p, k, row);
        if (word >= 0) add(words + word * p.features, p.features, p.out + row * p.features);
      }
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
