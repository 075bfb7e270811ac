// attention: each query and head on its own, over its span of keys.
//
// Every sum has a fixed order that is counted from the span's first key: a score adds its products
// in 16 interleaved sums, the weights of all keys are summed in 16 interleaved sums, and a feature
// of the result adds key after key. So the result depends on nothing but the span.
#include <algorithm>

#include "isa.h"
#include "vec.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Attention;

constexpr int kVectors = kSums / kLanes;

FC_INLINE V load_upto(const float* p, int64_t n) {
  return n >= kLanes ? load(p) : n > 0 ? load_part(p, static_cast<int>(n)) : zero();
}

// scores[s] = scale * (q . k[s]); returns the largest.
float dots(const float* q, const float* k, int64_t k_frame, int64_t count, int64_t features,
           float scale, float* scores) {
  constexpr int kKeys = 4;  // independent sums, to hide the latency of fma
  float largest = -INFINITY;
  for (int64_t s = 0; s < count; s += kKeys) {
    const int keys = static_cast<int>(std::min<int64_t>(kKeys, count - s));
    V sums[kKeys][kVectors] = {};
    for (int64_t d = 0; d < features; d += kSums) {
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = d + v * kLanes, left = features - at;
        const V qv = load_upto(q + at, left);
        for (int i = 0; i < kKeys; ++i) {
          const float* row = k + (s + (i < keys ? i : 0)) * k_frame;
          sums[i][v] = fma(qv, load_upto(row + at, left), sums[i][v]);
        }
      }
    }
    for (int i = 0; i < keys; ++i) {
      scores[s + i] = scale * tree_sum(sums[i]);
      largest = std::max(largest, scores[s + i]);
    }
  }
  return largest;
}

// scores[s] = exp(scores[s] - largest); returns their sum.
float exponentials(float* scores, int64_t count, float largest) {
  V sums[kVectors] = {};
  for (int64_t s = 0; s < count; s += kSums) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = s + v * kLanes, left = std::min<int64_t>(kLanes, count - at);
      if (left <= 0) continue;
      const V e = exp_small(load_upto(scores + at, left) - set(largest));
      store_part(scores + at, e, static_cast<int>(left));
      sums[v] = sums[v] + load_upto(scores + at, left);  // zero beyond the last
    }
  }
  return tree_sum(sums);
}

// out[d] = sum over s of weights[s] v[s][d], divided by total; NV vectors of features at a time.
template <int NV>
void mix(const float* weights, const float* v, int64_t v_frame, int64_t count, int64_t features,
         float total, float* out) {
  V sums[NV] = {};
  for (int64_t s = 0; s < count; ++s) {
    const V w = set(weights[s]);
    const float* row = v + s * v_frame;
    for (int i = 0; i < NV; ++i) {
      sums[i] = fma(w, load_upto(row + i * kLanes, features - i * kLanes), sums[i]);
    }
  }
  for (int i = 0; i < NV; ++i) {
    const int64_t left = std::min<int64_t>(kLanes, features - i * kLanes);
    if (left > 0) store_part(out + i * kLanes, sums[i] / set(total), static_cast<int>(left));
  }
}

}  // namespace

void attention(const Attention& p, int64_t batch, int64_t head, int64_t frame_begin,
               int64_t frame_end, float* scratch) {
  constexpr int64_t kStep = 64;  // features of a pass over the values
  const int64_t features = p.features, kv_head = head / (p.heads / p.kv_heads);
  for (int64_t t = frame_begin; t < frame_end; ++t) {
    const int64_t first = std::max<int64_t>(0, p.first[t]);
    const int64_t count = std::min(p.keys, p.last[t]) - first;
    float* out = p.out + ((batch * p.frames + t) * p.heads + head) * features;
    if (count <= 0) {
      std::fill(out, out + features, 0.0f);
      continue;
    }
    const float* q = p.q + batch * p.q_batch + t * p.q_frame + head * features;
    const float* k = p.k + batch * p.k_batch + first * p.k_frame + kv_head * features;
    const float* v = p.v + batch * p.v_batch + first * p.v_frame + kv_head * features;
    const float largest = dots(q, k, p.k_frame, count, features, p.scale, scratch);
    const float total = exponentials(scratch, count, largest);
    for (int64_t d = 0; d < features; d += kStep) {
      const int64_t some = std::min(kStep, features - d);
      if (some > kStep / 2) {
        mix<kStep / kLanes>(scratch, v + d, p.v_frame, count, some, total, out + d);
      } else {
        mix<kStep / 2 / kLanes>(scratch, v + d, p.v_frame, count, some, total, out + d);
      }
    }
  }
}

}  // namespace FASTCODEC_ISA_NS
