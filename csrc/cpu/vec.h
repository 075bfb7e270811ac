// One SIMD register of floats (`V`, kLanes wide) and the few functions the kernels need.
//
// Included by files that are compiled once per instruction set. Every function does the same
// sequence of IEEE operations in every lane and in every instruction set, so a result never depends
// on the lane an element falls into, nor on AVX2 or AVX-512.
#pragma once

#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define FC_INLINE static inline __attribute__((always_inline))
#define FC_LAMBDA_INLINE __attribute__((always_inline))

namespace FASTCODEC_ISA_NS {

#if defined(__AVX512F__)
using V = __m512;
using VI = __m512i;
constexpr int kLanes = 16;
FC_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
FC_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
FC_INLINE V set(float x) { return _mm512_set1_ps(x); }
FC_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
FC_INLINE V fnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
FC_INLINE void stream(float* p, V x) { _mm512_stream_ps(p, x); }       // past the caches
FC_INLINE V nearest(V x) { return _mm512_roundscale_ps(x, 0x08); }
FC_INLINE V max(V a, V b) { return _mm512_max_ps(a, b); }
FC_INLINE V min(V a, V b) { return _mm512_min_ps(a, b); }
FC_INLINE V abs(V x) { return _mm512_abs_ps(x); }
FC_INLINE V pow2(V n) {  // 2^n for integral n in [-126, 127]
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtps_epi32(_mm512_add_ps(n, set(127.0f))), 23));
}
FC_INLINE V select_gt(V a, V b, V yes, V no) {  // a > b ? yes : no
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), no, yes);
}
FC_INLINE bool any_gt(V a, V b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0; }
FC_INLINE V load_part(const float* p, int n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
FC_INLINE void store_part(float* p, V x, int n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), x);
}
#else
using V = __m256;
using VI = __m256i;
constexpr int kLanes = 8;
FC_INLINE V load(const float* p) { return _mm256_loadu_ps(p); }
FC_INLINE void store(float* p, V x) { _mm256_storeu_ps(p, x); }
FC_INLINE V set(float x) { return _mm256_set1_ps(x); }
FC_INLINE V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }
FC_INLINE V fnma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a b
FC_INLINE void stream(float* p, V x) { _mm256_stream_ps(p, x); }       // past the caches
FC_INLINE V nearest(V x) { return _mm256_round_ps(x, 0x08); }
FC_INLINE V max(V a, V b) { return _mm256_max_ps(a, b); }
FC_INLINE V min(V a, V b) { return _mm256_min_ps(a, b); }
FC_INLINE V abs(V x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
FC_INLINE V pow2(V n) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_cvtps_epi32(_mm256_add_ps(n, set(127.0f))), 23));
}
FC_INLINE V select_gt(V a, V b, V yes, V no) {
  return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
FC_INLINE bool any_gt(V a, V b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0; }
FC_INLINE V load_part(const float* p, int n) {
  alignas(32) float t[8] = {};
  std::memcpy(t, p, n * sizeof(float));
  return _mm256_load_ps(t);
}
FC_INLINE void store_part(float* p, V x, int n) {
  alignas(32) float t[8];
  _mm256_store_ps(t, x);
  std::memcpy(p, t, n * sizeof(float));
}
#endif

FC_INLINE V zero() { return set(0.0f); }

FC_INLINE uint32_t as_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
FC_INLINE float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// A float's bits rounded to bfloat16, to the nearest with ties to even; subnormal numbers too.
FC_INLINE uint32_t to_bfloat16(uint32_t bits) {
  const uint32_t up = bits + 0x7fff + ((bits >> 16) & 1);
  return ((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : up) & 0xffff0000;
}

// Sixteen interleaved sums, whatever the register width, as one: each of the first half plus its
// partner of the second, and so on.
constexpr int kSums = 16;
FC_INLINE float tree_sum(const V (&sums)[kSums / kLanes]) {
#if defined(__AVX512F__)
  const __m256 eight =
      _mm256_add_ps(_mm512_castps512_ps256(sums[0]), _mm512_extractf32x8_ps(sums[0], 1));
#else
  const __m256 eight = _mm256_add_ps(sums[0], sums[1]);
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

// min and max return their second argument where either is NaN: the variable goes second, so that a
// NaN stays visible.

// x = n ln2 + r with integral n and |r| <= 0.347; e^r - 1, relative error about 1 ulp near zero
// too.
FC_INLINE V expm1_reduced(V x, V* n) {
  *n = nearest(x * set(1.44269504088896341f));
  V r = fma(*n, set(-0.693145751953125f), x);
  r = fma(*n, set(-1.42860682030941723212e-6f), r);
  V p = set(1.9841270e-4f);  // Taylor: the next term is below 2^-26 of r
  p = fma(p, r, set(1.3888889e-3f));
  p = fma(p, r, set(8.3333333e-3f));
  p = fma(p, r, set(4.1666668e-2f));
  p = fma(p, r, set(1.6666667e-1f));
  p = fma(p, r, set(0.5f));
  return fma(p * r, r, r);
}

// exp(x) - 1 for x in [-87, 88], relative error below 2 ulp near zero too: 2^n (e^r - 1) +
// (2^n - 1) keeps the small result of a small x.
FC_INLINE V expm1_core(V x) {
  V n;
  const V p = expm1_reduced(x, &n), scale = pow2(n);
  return fma(scale, p, scale - set(1.0f));
}

// exp(x) for x <= 88, relative error below 2 ulp; what is below -87 gives exp(-87).
FC_INLINE V exp_small(V x) {
  V n;
  const V p = expm1_reduced(max(set(-87.0f), x), &n), scale = pow2(n);
  return fma(scale, p, scale);
}

FC_INLINE V elu(V x) {
  return select_gt(x, zero(), x, expm1_core(max(set(-87.0f), min(zero(), x))));
}

FC_INLINE V leaky_relu(V x, V slope) { return select_gt(x, zero(), x, x * slope); }

FC_INLINE V sigmoid(V x) {
  return set(1.0f) / (set(1.0f) + exp_small(min(set(88.0f), zero() - x)));
}

// tanh(x) = -e / (2 + e) with e = expm1(-2|x|): no cancellation near zero.
FC_INLINE V tanh(V x) {
  const V e = expm1_core(max(set(-87.0f), abs(x) * set(-2.0f)));
  const V t = (zero() - e) / (set(2.0f) + e);
  return select_gt(zero(), x, zero() - t, t);
}

// x sigmoid(x) = x e / (1 + e) for x < 0 with e = exp(x), x / (1 + e) with e = exp(-x) else. The
// root of e is what stays normal as far as the result does.
FC_INLINE V silu(V x) {
  const V a = abs(x);
  const V root = select_gt(a, set(174.0f), zero(), exp_small(a * set(-0.5f)));
  const V low = x * root * root, sum = fma(root, root, set(1.0f));
  return select_gt(x, zero(), x, low) / sum;
}

// x Phi(x), Phi the normal distribution function (the "exact" GELU), relative error of a few ulp in
// the tail too: Phi(-|x|) = erfcx(z) exp(-x^2 / 2) / 2 with z = |x| / sqrt 2, and (1 + 2 z)
// erfcx(z) is a polynomial in (z - 2) / (z + 2) (fitted, error 0.2 ulp up to z = 9.4). exp takes
// x^2 as a sum of two floats: rounded to one it would lose up to 6 bits. Below x = -13.19 the
// result is zero, where the exact one is no normal number any more.
FC_INLINE V gelu(V x) {
  const V a = min(set(13.2f), abs(x)), z = a * set(0.707106781186547524f);
  const V q = (z - set(2.0f)) / (z + set(2.0f));
  V p = set(-4.09541886e-4f);
  p = fma(p, q, set(-1.24544522e-3f));
  p = fma(p, q, set(1.3146546e-3f));
  p = fma(p, q, set(8.64393299e-3f));
  p = fma(p, q, set(-8.05754034e-3f));
  p = fma(p, q, set(-5.42073822e-2f));
  p = fma(p, q, set(1.64054714e-1f));
  p = fma(p, q, set(-1.66031167e-1f));
  p = fma(p, q, set(-9.27639488e-2f));
  p = fma(p, q, set(1.27697839f));
  const V square = a * a, rest = fma(a, a, zero() - square);
  const V e = exp_small(square * set(-0.5f));
  const V gauss = fma(e * set(-0.5f), rest, e);
  const V tail = set(0.5f) * (p * gauss) / fma(z, set(2.0f), set(1.0f));
  const V phi = select_gt(abs(x), set(13.19f), zero(), tail);
  return x * select_gt(x, zero(), set(1.0f) - phi, phi);
}

// (n - alpha x) / pi for the integer n next to alpha x / pi, from alpha / pi as the sum of two
// floats: exact to float accuracy up to |alpha x| = 2^22 pi. Beyond, each lane takes doubles.
FC_INLINE V half_turns(V x, V turns, V turns_low) {
  constexpr float kReducible = 4194304.0f;
  const V whole = x * turns;
  if (__builtin_expect(any_gt(abs(whole), set(kReducible)), 0)) {
    alignas(64) float w[kLanes], t[kLanes], high[kLanes], low[kLanes];
    const V n = nearest(whole);
    store(w, whole), store(high, turns), store(low, turns_low);
    store(t, fnma(x, turns_low, fnma(x, turns, n)));
    alignas(64) float values[kLanes];
    store(values, x);
    for (int i = 0; i < kLanes; ++i) {
      if (!(std::fabs(w[i]) > kReducible)) continue;
      const double exact = (static_cast<double>(high[i]) + low[i]) * values[i];
      t[i] = static_cast<float>(std::nearbyint(exact) - exact);
    }
    return load(t);
  }
  return fnma(x, turns_low, fnma(x, turns, nearest(whole)));
}

// sin(pi f)^2 / f^2 of s = f^2, |f| <= 1/2 (fitted, error 1.4e-8).
FC_INLINE V sin_squared_over(V s) {
  V p = set(-3.33621097f);
  p = fma(p, s, set(13.0371122f));
  p = fma(p, s, set(-30.0985527f));
  p = fma(p, s, set(42.7269287f));
  p = fma(p, s, set(-32.4696617f));
  return fma(p, s, set(9.86960411f));
}

// sin(2 pi f) / f of s = f^2, |f| <= 1/2 (fitted, error of the sine 4e-9).
FC_INLINE V sin_double_over(V s) {
  V p = set(3.23849487f);
  p = fma(p, s, set(-14.900115f));
  p = fma(p, s, set(42.026001f));
  p = fma(p, s, set(-76.7030258f));
  p = fma(p, s, set(81.6051331f));
  p = fma(p, s, set(-41.3417015f));
  return fma(p, s, set(6.28318548f));
}

// x + sin(alpha x)^2 * inverse_beta.
FC_INLINE V snake(V x, V turns, V turns_low, V inverse_beta) {
  const V f = half_turns(x, turns, turns_low), s = f * f;
  return fma(sin_squared_over(s), s * inverse_beta, x);
}

}  // namespace FASTCODEC_ISA_NS
