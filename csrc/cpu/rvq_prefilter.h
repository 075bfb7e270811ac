// Which code words can be the nearest, from 8-bit integers (AVX-512 VNNI), four products where
// float32 does one. Codes are decided by float32 scores alone, so that they are those of the full
// search, ties included.
//
// A row x and a word e are rounded to y = s q and f = t g, q and g integers up to 127. Let X = |x|,
// r = |x - y|, P >= |e|, and rho P >= |e - f| for every word of the stage. Then
//   |x.e - y.f| = |(x - y).e + y.(e - f)| <= (r + (X + r) rho) P.
// The float32 score of the full search, D products added one by one and then the offset
// o = -|e|^2 / 2, is off x.e + o by at most 1.01 u ((D + 1) X P + |o|), u = 2^-24, and the score
// here, whose sum of integers is exact, by 3 roundings and one more as a bound: u (6 X P + 2 |o|)
// (r and |e - f| are below X / 7 and P / 7 for D <= 1024). With |o| <= M P / 2, M the largest P,
// all of it is below
//   F P,  F = (1 + 2^-8) (r + (X + r) rho + (D + 16) 2u X) + 8u M,
// where 2^-8 covers the rounding of F, X and r themselves, and (D + 8) u X P is left over for what
// underflows, flushed to zero or not: X >= 2^-20 and P >= 2^-30 M >= 2^-50 are seen to, so that is
// above D 2^-102, and 2^-126 D is lost at most. So the full search's winner w has
//   score(w) + F P(w) >= max over n of score(n) - F P(n),
// as has every word that ties with it. Rows and stages outside these ranges, or not finite, take
// the full search.
#pragma once

#if defined(__AVX512F__)

#include <algorithm>
#include <cmath>
#include <limits>

#include "tile.h"
#include "transpose.h"

namespace FASTCODEC_ISA_NS {
namespace {

constexpr int64_t kMostFeatures = 1024;  // sums of D 127^2 are exact as floats, too
constexpr float kSmallest = 0x1p-20f, kLargest = 0x1p40f;
constexpr int64_t kMostCandidates = 64;  // of a row: with more, the full search is as fast

bool has_prefilter(int64_t features) {
  static const bool kVnni = __builtin_cpu_supports("avx512vnni");
  return kVnni && features <= kMostFeatures;
}

int64_t in_fours(int64_t features) { return (features + 3) / 4 * 4; }

// One stage's words: g as [panel of 32][feature / 4][word][4]; -128 times the sum of each word's g,
// for rows come as q + 128; t; P; then rho and M, M = 0 where the stage takes the full search.
struct Rounded {
  const int8_t* integers;
  const int32_t* shift;
  const float *scale, *norm, *stage;
  Rounded(const float* packed, int64_t words, int64_t features) {
    integers = reinterpret_cast<const int8_t*>(packed);
    packed += words * in_fours(features) / 4;
    shift = reinterpret_cast<const int32_t*>(packed);
    scale = packed + words, norm = scale + words, stage = norm + words;
  }
  bool usable() const { return stage[1] > 0; }
};

int64_t rounded_size(int64_t words, int64_t features) {
  return words * (in_fours(features) / 4 + 3) + 2 * kLanes;
}

void round_words(const float* codebook, int64_t codewords, int64_t words, int64_t features,
                 float* packed) {
  const Rounded at(packed, words, features);
  auto* integers = const_cast<int8_t*>(at.integers);
  auto* shift = const_cast<int32_t*>(at.shift);
  auto *scale = const_cast<float*>(at.scale), *norm = const_cast<float*>(at.norm);
  auto* stage = const_cast<float*>(at.stage);
  std::fill_n(integers, words * in_fours(features), int8_t{0});
  std::fill_n(shift, words, 0);
  std::fill_n(scale, words, 0.0f), std::fill_n(norm, words, 0.0f);
  std::fill_n(stage, 2 * kLanes, 0.0f);
  double most = 0;
  for (int64_t n = 0; n < codewords; ++n) {
    double square = 0;
    for (int64_t d = 0; d < features; ++d) {
      square += static_cast<double>(codebook[n * features + d]) * codebook[n * features + d];
    }
    if (!(square <= static_cast<double>(kLargest) * kLargest)) return;
    most = std::max(most, std::sqrt(square));
    norm[n] = static_cast<float>(std::sqrt(square) * 1.000001);
  }
  if (most < kSmallest) return;
  double rho = 0;
  for (int64_t n = 0; n < codewords; ++n) {
    const float* word = codebook + n * features;
    float top = 0;
    for (int64_t d = 0; d < features; ++d) top = std::max(top, std::fabs(word[d]));
    scale[n] = top / 127;
    norm[n] = std::max(norm[n], static_cast<float>(most * 0x1p-30 * 1.000001));
    double lost = 0;
    int32_t sum = 0;
    for (int64_t d = 0; d < features; ++d) {
      const double exact = scale[n] > 0 ? static_cast<double>(word[d]) / scale[n] : 0;
      const double g = std::min(127.0, std::max(-127.0, std::nearbyint(exact)));
      lost += (word[d] - g * scale[n]) * (word[d] - g * scale[n]);
      integers[(n / 32 * (in_fours(features) / 4) + d / 4) * 128 + n % 32 * 4 + d % 4] =
          static_cast<int8_t>(g);
      sum += static_cast<int32_t>(g);
    }
    shift[n] = -128 * sum;
    rho = std::max(rho, std::sqrt(lost) / norm[n]);
  }
  stage[0] = static_cast<float>(rho * 1.000001), stage[1] = static_cast<float>(most * 1.000001);
}

// q + 128 of a row, in `out`, s, and F for words of this stage; false: not in range.
bool round_row(const float* x, int64_t features, const Rounded& words, uint8_t* out, float* scale,
               float* bound) {
  V top = zero(), squares[1] = {zero()};
  for (int64_t d = 0; d < features; d += kLanes) {
    const V value = load_part(x + d, static_cast<int>(std::min<int64_t>(kLanes, features - d)));
    top = max(top, abs(value));
    squares[0] = fma(value, value, squares[0]);
  }
  const float largest = _mm512_reduce_max_ps(top), length = std::sqrt(tree_sum(squares));
  if (!(largest >= kSmallest && length <= kLargest)) return false;
  *scale = largest / 127;
  const V s = set(*scale), inverse = set(127 / largest);
  V lost[1] = {zero()};
  for (int64_t d = 0; d < features; d += kLanes) {
    const V value = load_part(x + d, static_cast<int>(std::min<int64_t>(kLanes, features - d)));
    const V q = nearest(value * inverse);
    const V rest = fma(zero() - q, s, value);
    lost[0] = fma(rest, rest, lost[0]);
    const __m128i bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(q));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + d),
                     _mm_xor_si128(bytes, _mm_set1_epi8(-128)));
  }
  const float r = std::sqrt(tree_sum(lost)), rho = words.stage[0];
  const float rounding = static_cast<float>(features + 16) * 0x1p-23f * length;
  *bound = (1 + 0x1p-8f) * (r + (length + r) * rho + rounding) + 0x1p-21f * words.stage[1];
  return true;
}

// sum + the products of four unsigned and four signed bytes. Not the intrinsic, which GCC 12 copies
// registers around.
FC_INLINE __m512i dot4(__m512i sum, __m512i bytes, __m512i signed_bytes) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(bytes), "v"(signed_bytes));
  return sum;
}

struct Bounds {  // of the rows of a tile: see above
  float scale[kRows], bound[kRows];
  float below[kRows][kLanes];  // the largest score - F P so far
};

// score + F P of one panel of words, into upper [row][words].
template <int M>
__attribute__((noinline)) void bound_panel(const uint8_t* rows, int64_t row_bytes, int64_t features,
                                           const Rounded& words, const float* offset, int64_t first,
                                           Bounds* b, float* upper, int64_t row_words) {
  __m512i sums[M][2];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < 2; ++v) sums[m][v] = _mm512_loadu_si512(words.shift + first + v * kLanes);
  }
  const int8_t* panel = words.integers + first * in_fours(features);
  for (int64_t d = 0; d < features; d += 4, panel += 128) {
    const __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + 64);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      int32_t four;
      std::memcpy(&four, rows + m * row_bytes + d, 4);
      const __m512i x = _mm512_set1_epi32(four);
      sums[m][0] = dot4(sums[m][0], x, w0);
      sums[m][1] = dot4(sums[m][1], x, w1);
    }
  }
  V t[2], o[2], p[2];
#pragma GCC unroll 4
  for (int v = 0; v < 2; ++v) {
    const int64_t n = first + v * kLanes;
    t[v] = load(words.scale + n), o[v] = load(offset + n), p[v] = load(words.norm + n);
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    const V s = set(b->scale[m]), f = set(b->bound[m]);
    V below = load(b->below[m]);
#pragma GCC unroll 4
    for (int v = 0; v < 2; ++v) {
      const V score = fma(_mm512_cvtepi32_ps(sums[m][v]) * t[v], s, o[v]);
      store(upper + m * row_words + first + v * kLanes, fma(f, p[v], score));
      below = max(below, fma(zero() - f, p[v], score));
    }
    store(b->below[m], below);
  }
}

// The words n with upper[n] >= least, in rising order, as far as there is room; how many there are.
int64_t candidates(const float* upper, int64_t words, float least, int32_t* found) {
  const V limit = set(least);
  int64_t count = 0;
  for (int64_t first = 0; first < words; first += 2 * kLanes) {
    const V a = load(upper + first), b = load(upper + first + kLanes);
    uint32_t bits = _mm512_cmp_ps_mask(a, limit, _CMP_GE_OQ) |
                    static_cast<uint32_t>(_mm512_cmp_ps_mask(b, limit, _CMP_GE_OQ)) << kLanes;
    for (; bits != 0; bits &= bits - 1, ++count) {
      if (count < kMostCandidates) found[count] = static_cast<int32_t>(first) + __builtin_ctz(bits);
    }
  }
  return count;
}

// x[i].e[i] of eight pairs, product after product as the full search adds them.
void eight_dots(const float* const (&x)[8], const float* const (&e)[8], int64_t features,
                float* out) {
  __m256 sums = _mm256_setzero_ps();
  int64_t d = 0;
  for (; d + 8 <= features; d += 8) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(x[i] + d), b[i] = _mm256_loadu_ps(e[i] + d);
    transpose8(a), transpose8(b);
    for (int i = 0; i < 8; ++i) sums = _mm256_fmadd_ps(a[i], b[i], sums);
  }
  _mm256_storeu_ps(out, sums);
  for (; d < features; ++d) {
    for (int i = 0; i < 8; ++i) out[i] = std::fma(x[i][d], e[i][d], out[i]);
  }
}

}  // namespace
}  // namespace FASTCODEC_ISA_NS

#endif
