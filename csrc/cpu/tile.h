// The register tile all kernels share: M rows of A times one packed panel of B.
#pragma once

#include "vec.h"

namespace FASTCODEC_ISA_NS {

// Rows of a full tile: with two vectors of columns it keeps M * 2 sums in registers
// (24 of 32 with AVX-512, 12 of 16 with AVX2), enough to hide the latency of fma.
#if defined(__AVX512F__)
constexpr int kRows = 12;
#else
constexpr int kRows = 6;
#endif

// One step of a sum: of floats, or of two products of bfloat16 pairs, each pair in a float's place.
struct Floats {
  FC_INLINE V add(V a, V b, V sum) { return fma(a, b, sum); }
};
#if defined(__AVX512BF16__)
constexpr bool kPairs = true;
struct Pairs {
  // Takes subnormal numbers for zero, and gives zero for them.
  FC_INLINE V add(V a, V b, V sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_castps_si512(a),
                            (__m512bh)_mm512_castps_si512(b));
  }
};
#else
constexpr bool kPairs = false;
using Pairs = Floats;
#endif

// sums[m][v] += A[m][:] B[:][v]. A's row m is `segments` runs of `length` floats, `segment_stride`
// apart, from a + m * row_stride; B is [segments * length][NV * kLanes]. Each sum adds its products
// one after the other, so it depends on nothing but its own row and column.
template <int M, int NV, typename Product = Floats>
FC_INLINE void accumulate(V (&sums)[M][NV], const float* a, int64_t row_stride, int64_t segments,
                          int64_t length, int64_t segment_stride, const float* b) {
  for (int64_t s = 0; s < segments; ++s) {
    const float* as = a + s * segment_stride;
    for (int64_t i = 0; i < length; ++i) {
      V bv[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) bv[v] = load(b + v * kLanes);
      b += NV * kLanes;
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const V am = set(as[m * row_stride + i]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) sums[m][v] = Product::add(am, bv[v], sums[m][v]);
      }
    }
  }
}

// Calls f<M>() with the compile-time M equal to rows (1..kRows).
template <int M = kRows, typename F>
FC_INLINE void with_rows(int64_t rows, const F& f) {
  if constexpr (M == 1) {
    f(std::integral_constant<int, 1>());
  } else {
    if (rows >= M) {
      f(std::integral_constant<int, M>());
    } else {
      with_rows<M - 1>(rows, f);
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
