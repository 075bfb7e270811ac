// Residual quantisation between linear maps (DAC, SNAC): all levels of a block of frames in one
// call, the residual in cache.
//
// The frames are the lanes: every map is a tile of its rows times the block's panel of features,
// [feature][frame], and weights are read where they lie. Sums are those of conv1d (from the bias,
// channel after channel), of the reference's unit length, and of rvq_encode, so the codes are those
// of these ops one after the other. Packed level: the words at unit length, [word][feature], then
// -|e|^2 / 2 of every word, then their numbers.
#include <algorithm>
#include <cmath>
#include <limits>

#include "isa.h"
#include "tile.h"
#include "transpose.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::RvqFactorised;

constexpr int kTile = kLanes / 2;  // rows of a map at a time: leaves registers for a search
constexpr int64_t kWidest = 2 * kLanes;
constexpr int64_t kChunk = 64;  // channels that stay in L1 between two maps

#if defined(__AVX512F__)
FC_INLINE V square_root(V x) { return _mm512_sqrt_ps(x); }
#else
FC_INLINE V square_root(V x) { return _mm256_sqrt_ps(x); }
#endif

// x * x, rounded: without this the compiler may fuse it with the sum that it goes into.
template <typename T>
FC_INLINE T squared(T x) {
  T y = x * x;
  __asm__("" : "+x"(y));
  return y;
}

// 8 x 8 floats, turned over, to rows `stride` apart.
FC_INLINE void transposed8(const float* const (&from)[8], float* to, int64_t stride) {
  __m256 r[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(from[i]);
  transpose8(r);
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + i * stride, r[i]);
}

// The frames' values as [channel][width]; lanes without a frame are zero.
template <int64_t kWidth>
void gather(const RvqFactorised& p, int64_t row_begin, int64_t rows, float* out) {
  const float* from[kWidth];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row_begin + r;
    from[r] = p.x + row / p.frames * p.x_batch + row % p.frames * p.x_frame;
  }
  if (rows < kWidth) std::fill_n(out, p.channels * kWidth, 0.0f);
  int64_t done = 0;  // channels of the first `whole` frames that are in place
  const int64_t whole = rows / 8 * 8;
  if (p.x_channel == 1) {
    done = p.channels / 8 * 8;
    for (int64_t r = 0; r < whole; r += 8) {
      for (int64_t c = 0; c < done; c += 8) {
        const float* eight[8];
        for (int i = 0; i < 8; ++i) eight[i] = from[r + i] + c;
        transposed8(eight, out + c * kWidth + r, kWidth);
      }
    }
  }
  for (int64_t c = 0; c < p.channels; ++c) {
    for (int64_t r = c < done ? whole : 0; r < rows; ++r) {
      out[c * kWidth + r] = from[r][c * p.x_channel];
    }
  }
}

// [channel][width] as channels [first, first + count) of `rows` time-major frames of the result.
template <int64_t kWidth>
void scatter(const RvqFactorised& p, const float* total, int64_t row_begin, int64_t rows,
             int64_t first, int64_t count) {
  float* out = p.out + row_begin * p.channels + first;
  const int64_t whole = rows / 8 * 8, done = count / 8 * 8;
  for (int64_t c = 0; c < done; c += 8) {
    for (int64_t r = 0; r < whole; r += 8) {
      const float* eight[8];
      for (int i = 0; i < 8; ++i) eight[i] = total + (c + i) * kWidth + r;
      transposed8(eight, out + r * p.channels + c, p.channels);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = r < whole ? done : 0; c < count; ++c) {
      out[r * p.channels + c] = total[c * kWidth + r];
    }
  }
}

// sums [features][width] += in_weight[:, first : first + count] times residual [count][width].
template <int NV>
void project(const RvqFactorised& p, int64_t level, int64_t first, int64_t count,
             const float* residual, float* sums) {
  constexpr int64_t kWidth = NV * kLanes;
  for (int64_t d = 0; d < p.features; d += kTile) {
    with_rows<kTile>(p.features - d, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      const float* weight = p.in_weight + (level * p.features + d) * p.channels + first;
      V tile[M][NV];
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) tile[m][v] = load(sums + (d + m) * kWidth + v * kLanes);
      }
      accumulate(tile, weight, p.channels, 1, count, 0, residual);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) store(sums + (d + m) * kWidth + v * kLanes, tile[m][v]);
      }
    });
  }
}

// total [count][width] = f(total, y), y being what the words [features][width] stand for in
// channels [first, first + count); f also gets which vector of frames it is.
template <int NV, typename F>
void expand(const RvqFactorised& p, int64_t level, int64_t first, int64_t count, const float* words,
            float* total, const F& f) {
  constexpr int64_t kWidth = NV * kLanes;
  for (int64_t c = 0; c < count; c += kTile) {
    with_rows<kTile>(count - c, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      const int64_t row = level * p.channels + first + c;
      V tile[M][NV];
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) tile[m][v] = set(p.out_bias[row + m]);
      }
      accumulate(tile, p.out_weight + row * p.features, p.features, 1, p.features, 0, words);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          float* to = total + (c + m) * kWidth + v * kLanes;
          store(to, f(load(to), tile[m][v], v));
        }
      }
    });
  }
}

// Scales each frame's features to unit length; no less than 1e-12 is divided by.
template <int NV>
void make_unit(float* x, int64_t features) {
  for (int v = 0; v < NV; ++v) {
    float* lane = x + v * kLanes;
    V square = squared(load(lane));
    for (int64_t d = 1; d < features; ++d) {
      square = square + squared(load(lane + d * NV * kLanes));
    }
    const V length = max(set(1e-12f), square_root(square));
    for (int64_t d = 0; d < features; ++d) {
      float* value = lane + d * NV * kLanes;
      store(value, load(value) / length);
    }
  }
}

// The number of each frame's nearest word, the lowest where equal.
template <int NV>
void search(const RvqFactorised& p, const float* packed, const float* unit, float* found) {
  const float* offset = packed + p.codewords * p.features;
  const float* number = offset + p.codewords;
  V best[NV], word[NV];
  for (int v = 0; v < NV; ++v) {
    best[v] = set(-std::numeric_limits<float>::infinity()), word[v] = zero();
  }
  for (int64_t n = 0; n < p.codewords; n += kTile) {
    with_rows<kTile>(p.codewords - n, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      V tile[M][NV] = {};
      accumulate(tile, packed + n * p.features, p.features, 1, p.features, 0, unit);
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) {
          const V score = tile[m][v] + set(offset[n + m]);
          word[v] = select_gt(score, best[v], set(number[n + m]), word[v]);
          best[v] = select_gt(score, best[v], score, best[v]);
        }
      }
    });
  }
  for (int v = 0; v < NV; ++v) store(found + v * kLanes, word[v]);
}

int64_t packed_size(int64_t codewords, int64_t features) { return codewords * (features + 2); }

template <int NV>
void encode_block(const RvqFactorised& p, int64_t row_begin, int64_t rows, float* scratch) {
  constexpr int64_t kWidth = NV * kLanes;
  float* residual = scratch;
  float* unit = residual + p.channels * kWidth;
  float* words = unit + p.features * kWidth;
  alignas(64) float found[kWidth];
  gather<kWidth>(p, row_begin, rows, residual);
  for (int64_t level = 0; level < p.levels; ++level) {
    for (int64_t d = 0; d < p.features; ++d) {
      std::fill_n(unit + d * kWidth, kWidth, p.in_bias[level * p.features + d]);
    }
    for (int64_t c = 0; c < p.channels; c += kChunk) {
      const int64_t count = std::min(kChunk, p.channels - c);
      if (level > 0) {
        expand<NV>(p, level - 1, c, count, words, residual + c * kWidth,
                   [](V x, V y, int) { return x - y; });
      }
      project<NV>(p, level, c, count, residual + c * kWidth, unit);
    }
    make_unit<NV>(unit, p.features);
    search<NV>(p, p.packed + level * packed_size(p.codewords, p.features), unit, found);
    for (int64_t r = 0; r < kWidth; ++r) {
      const int64_t row = row_begin + r, word = static_cast<int64_t>(found[r]);
      const float* e = p.codebooks + (level * p.codewords + word) * p.features;
      for (int64_t d = 0; d < p.features; ++d) words[d * kWidth + r] = e[d];
      if (r < rows) {
        p.found[(row / p.frames * p.levels + level) * p.frames + row % p.frames] = word;
      }
    }
  }
}

template <int NV>
void decode_block(const RvqFactorised& p, int64_t row_begin, int64_t rows, float* scratch) {
  constexpr int64_t kWidth = NV * kLanes;
  float* total = scratch;
  float* words = total + kChunk * kWidth;
  float* used = words + p.levels * p.features * kWidth;  // 1 where the frame has a word, 0 else
  for (int64_t level = 0; level < p.levels; ++level) {
    for (int64_t r = 0; r < kWidth; ++r) {
      const int64_t row = row_begin + std::min(r, rows - 1);
      const int64_t word =
          p.codes[row / p.frames * p.by_batch + level * p.by_level + row % p.frames * p.by_frame];
      used[level * kWidth + r] = word < 0 ? 0.0f : 1.0f;
      const float* e =
          p.codebooks + (level * p.codewords + std::max<int64_t>(word, 0)) * p.features;
      float* to = words + level * p.features * kWidth + r;
      for (int64_t d = 0; d < p.features; ++d) to[d * kWidth] = e[d];
    }
  }
  for (int64_t c = 0; c < p.channels; c += kChunk) {
    const int64_t count = std::min(kChunk, p.channels - c);
    std::fill_n(total, count * kWidth, 0.0f);
    for (int64_t level = 0; level < p.levels; ++level) {
      const float* here = used + level * kWidth;
      expand<NV>(
          p, level, c, count, words + level * p.features * kWidth, total,
          [here](V x, V y, int v) { return select_gt(load(here + v * kLanes), zero(), x + y, x); });
    }
    scatter<kWidth>(p, total, row_begin, rows, c, count);
  }
}

}  // namespace

int64_t rvq_factorised_packed_size(int64_t codewords, int64_t features) {
  return packed_size(codewords, features);
}

void rvq_factorised_pack(const float* codebook, int64_t codewords, int64_t features,
                         float* packed) {
  float* offset = packed + codewords * features;
  for (int64_t n = 0; n < codewords; ++n) {
    const float* word = codebook + n * features;
    float square = squared(word[0]);
    for (int64_t d = 1; d < features; ++d) square += squared(word[d]);
    // As torch's clamp: a NaN stays one.
    const float root = std::sqrt(square), length = root < 1e-12f ? 1e-12f : root;
    double norm = 0;
    for (int64_t d = 0; d < features; ++d) {
      const float e = word[d] / length;
      packed[n * features + d] = e;
      norm += static_cast<double>(e) * e;
    }
    offset[n] = static_cast<float>(-0.5 * norm);
    offset[codewords + n] = static_cast<float>(n);
  }
}

int64_t rvq_factorised_scratch_size(const RvqFactorised& p) {
  const int64_t encode = p.channels + 2 * p.features;
  const int64_t decode = kChunk + p.levels * (p.features + 1);
  return std::max(encode, decode) * kWidest;
}

int64_t rvq_factorised_block() { return kWidest; }

void rvq_factorised_encode(const RvqFactorised& p, int64_t row_begin, int64_t row_end,
                           float* scratch) {
  for (int64_t row = row_begin; row < row_end; row += kWidest) {
    const int64_t rows = std::min(kWidest, row_end - row);
    rows > kLanes ? encode_block<2>(p, row, rows, scratch) : encode_block<1>(p, row, rows, scratch);
  }
}

void rvq_factorised_decode(const RvqFactorised& p, int64_t row_begin, int64_t row_end,
                           float* scratch) {
  for (int64_t row = row_begin; row < row_end; row += kWidest) {
    const int64_t rows = std::min(kWidest, row_end - row);
    rows > kLanes ? decode_block<2>(p, row, rows, scratch) : decode_block<1>(p, row, rows, scratch);
  }
}

}  // namespace FASTCODEC_ISA_NS
