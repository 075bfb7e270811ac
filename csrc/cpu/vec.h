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

namespace FASTCODEC_ISA_NS {

#if defined(__AVX512F__)
using V = __m512;
using VI = __m512i;
constexpr int kLanes = 16;
FC_INLINE V load(const float* p) { return _mm512_loadu_ps(p); }
FC_INLINE void store(float* p, V x) { _mm512_storeu_ps(p, x); }
FC_INLINE V set(float x) { return _mm512_set1_ps(x); }
FC_INLINE V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }
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

// min and max return their second argument where either is NaN: the variable goes second, so that a
// NaN stays visible.

// exp(x) - 1 for x in [-87, 88], relative error below 2 ulp near zero too:
// x = n ln2 + r, and 2^n (e^r - 1) + (2^n - 1) keeps the small result of a small x.
FC_INLINE V expm1_core(V x) {
  const V n = nearest(x * set(1.44269504088896341f));
  V r = fma(n, set(-0.693145751953125f), x);
  r = fma(n, set(-1.42860682030941723212e-6f), r);
  V p = set(1.9841270e-4f);  // Taylor, |r| <= 0.347: the next term is below 2^-26 of r
  p = fma(p, r, set(1.3888889e-3f));
  p = fma(p, r, set(8.3333333e-3f));
  p = fma(p, r, set(4.1666668e-2f));
  p = fma(p, r, set(1.6666667e-1f));
  p = fma(p, r, set(0.5f));
  p = fma(p * r, r, r);
  const V scale = pow2(n);
  return fma(scale, p, scale - set(1.0f));
}

FC_INLINE V exp_clamped(V x) {  // exp(x), x clamped to [-87, 88]
  return expm1_core(min(set(88.0f), max(set(-87.0f), x))) + set(1.0f);
}

FC_INLINE V elu(V x) {
  return select_gt(x, zero(), x, expm1_core(max(set(-87.0f), min(zero(), x))));
}

FC_INLINE V leaky_relu(V x, V slope) { return select_gt(x, zero(), x, x * slope); }

FC_INLINE V sigmoid(V x) { return set(1.0f) / (set(1.0f) + exp_clamped(zero() - x)); }

// tanh(x) = -e / (2 + e) with e = expm1(-2|x|): no cancellation near zero.
FC_INLINE V tanh(V x) {
  const V e = expm1_core(max(set(-87.0f), abs(x) * set(-2.0f)));
  const V t = (zero() - e) / (set(2.0f) + e);
  return select_gt(zero(), x, zero() - t, t);
}

// sin(x)^2. The period is pi, so x - n pi needs no quadrant; three-part pi keeps the remainder
// exact to float accuracy up to |x| = 2^13 pi. Beyond, each lane takes the library's double sine.
FC_INLINE V sin_squared(V x) {
  constexpr float kReducible = 25735.0f;
  if (__builtin_expect(any_gt(abs(x), set(kReducible)), 0)) {
    alignas(64) float t[kLanes];
    store(t, x);
    for (float& v : t) {
      if (std::fabs(v) > kReducible) {
        const double s = std::sin(static_cast<double>(v));
        v = static_cast<float>(std::asin(std::fabs(s)));  // same sin^2, |v| <= pi/2
      }
    }
    x = load(t);
  }
  const V n = nearest(x * set(0.318309886183790671f));
  V r = fma(n, set(-3.140625f), x);
  r = fma(n, set(-9.67502593994140625e-4f), r);
  r = fma(n, set(-1.509957990978376432e-7f), r);
  const V s = r * r;
  V p = set(-2.3889859e-8f);
  p = fma(p, s, set(2.7525562e-6f));
  p = fma(p, s, set(-1.9840874e-4f));
  p = fma(p, s, set(8.3333310e-3f));
  p = fma(p, s, set(-1.6666667e-1f));
  const V sine = fma(p * s, r, r);
  return sine * sine;
}

}  // namespace FASTCODEC_ISA_NS
