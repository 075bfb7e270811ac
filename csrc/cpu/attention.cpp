// attention: blocks of one head's queries, each query over its own span of keys.
//
// A block's keys are laid out as panels of columns and its values as panels of rows; then scores
// and results are matrix products in register tiles. Every sum has a fixed order that is counted
// from the span's first key: a score adds feature after feature, the weights of all keys are summed
// in 16 interleaved sums, and a feature of the result adds key after key, those that not all
// queries of a tile see before and after the others. So a result depends on nothing but its span.
#include <algorithm>

#include "isa.h"
#include "tile.h"
#include "transpose.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Attention;
using fastcodec::KeyRows;

constexpr int kVectors = kSums / kLanes;
constexpr int64_t kPanel = 2 * kLanes;  // keys of a panel of scores, features of one of results
constexpr int64_t kQueries = 4 * kRows;

int64_t rounded_up(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

FC_INLINE V load_upto(const float* p, int64_t n) {
  return n >= kLanes ? load(p) : n > 0 ? load_part(p, static_cast<int>(n)) : zero();
}

struct Span {
  int64_t first, last;  // the same where there is no key
};

Span span_of(const Attention& p, int64_t t) {
  const int64_t first = std::max<int64_t>(0, p.first[t]), last = std::min(p.keys, p.last[t]);
  return first < last ? Span{first, last} : Span{0, 0};
}

// The keys that any of these queries sees.
Span keys_of(const Span* spans, int64_t count) {
  Span all = {0, 0};
  for (int64_t i = 0; i < count; ++i) {
    if (spans[i].first == spans[i].last) continue;
    const bool begun = all.first < all.last;
    all = {begun ? std::min(all.first, spans[i].first) : spans[i].first,
           std::max(all.last, spans[i].last)};
  }
  return all;
}

// Eight rows of `features`, `stride` apart, as columns `kPanel` apart in `out`.
void columns_of_eight(const float* rows, int64_t stride, int64_t features, float* out) {
  int64_t d = 0;
  for (; d + 8 <= features; d += 8) {
    __m256 r[8];
    for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(rows + i * stride + d);
    transpose8(r);
    for (int i = 0; i < 8; ++i) _mm256_storeu_ps(out + (d + i) * kPanel, r[i]);
  }
  for (; d < features; ++d) {
    for (int i = 0; i < 8; ++i) out[d * kPanel + i] = rows[i * stride + d];
  }
}

// f(rows, from, count, at) for the parts of the keys [first, last): `count` of them in rows, from
// `from` on, of which the first is `at` keys after `first`.
template <typename F>
void each_part(const Attention& p, Span keys, const F& f) {
  int64_t begin = 0;
  for (const KeyRows& rows : p.rows) {
    const int64_t from = std::max(keys.first, begin), to = std::min(keys.last, begin + rows.count);
    if (from < to) f(rows, from - begin, to - from, from - keys.first);
    begin += rows.count;
  }
}

// Keys as [panel][feature][key], zeros after the last.
void pack_keys(const Attention& p, int64_t batch, int64_t head, Span keys, float* packed) {
  const int64_t count = keys.last - keys.first, size = p.features * kPanel;
  const auto place = [&](int64_t at) { return packed + at / kPanel * size + at % kPanel; };
  each_part(p, keys, [&](const KeyRows& rows, int64_t from, int64_t n, int64_t at) {
    const float* x = rows.k + batch * rows.k_batch + head * rows.k_head + from * rows.k_frame;
    for (int64_t i = 0; i < n;) {
      if ((at + i) % 8 == 0 && i + 8 <= n) {
        columns_of_eight(x + i * rows.k_frame, rows.k_frame, p.features, place(at + i));
        i += 8;
      } else {
        float* to = place(at + i);
        for (int64_t d = 0; d < p.features; ++d) to[d * kPanel] = x[i * rows.k_frame + d];
        i += 1;
      }
    }
  });
  for (int64_t at = count; at < rounded_up(count); ++at) {
    for (int64_t d = 0; d < p.features; ++d) place(at)[d * kPanel] = 0.0f;
  }
}

// Values as [panel][key][feature], zeros after the last feature.
void pack_values(const Attention& p, int64_t batch, int64_t head, Span keys, float* packed) {
  const int64_t count = keys.last - keys.first;
  each_part(p, keys, [&](const KeyRows& rows, int64_t from, int64_t n, int64_t at) {
    const float* x = rows.v + batch * rows.v_batch + head * rows.v_head + from * rows.v_frame;
    for (int64_t i = 0; i < n; ++i, x += rows.v_frame) {
      for (int64_t d = 0; d < rounded_up(p.features); d += kLanes) {
        float* to = packed + (d / kPanel * count + at + i) * kPanel + d % kPanel;
        store(to, load_upto(x + d, p.features - d));
      }
    }
  });
}

// scores[m][key] = scale * (q[m] . key) for the panels that hold a key of the tile.
template <int M>
void scores_of(const Attention& p, const float* q, const float* keys, Span panels, int64_t width,
               float* scores) {
  for (int64_t s = panels.first / kPanel * kPanel; s < panels.last; s += kPanel) {
    V sums[M][2] = {};
    accumulate<M, 2>(sums, q, p.features, 1, p.features, 0, keys + s * p.features);
#pragma GCC unroll 16
    for (int m = 0; m < M; ++m) {
      for (int v = 0; v < 2; ++v) {
        store(scores + m * width + s + v * kLanes, set(p.scale) * sums[m][v]);
      }
    }
  }
}

// The largest that is a number.
float largest_of(const float* x, int64_t count) {
  float largest = -INFINITY;
  int64_t i = 0;
  if (count >= kLanes) {
    V all = set(largest);
    for (; i + kLanes <= count; i += kLanes) all = max(load(x + i), all);
    alignas(64) float lanes[kLanes];
    store(lanes, all);
    for (float value : lanes) largest = std::max(largest, value);
  }
  for (; i < count; ++i) largest = std::max(largest, x[i]);
  return largest;
}

// scores[s] = exp(scores[s] - the largest); returns their sum.
float exponentials(float* scores, int64_t count) {
  const V largest = set(largest_of(scores, count));
  V sums[kVectors] = {};
  for (int64_t s = 0; s < count; s += kSums) {
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = s + v * kLanes, left = std::min<int64_t>(kLanes, count - at);
      if (left <= 0) continue;
      const V e = exp_small(load_upto(scores + at, left) - largest);
      store_part(scores + at, e, static_cast<int>(left));
      sums[v] = sums[v] + load_upto(scores + at, left);  // zero beyond the last
    }
  }
  return tree_sum(sums);
}

// sums += weights of the keys [first, last) times a panel of their values.
template <int M>
FC_INLINE void add_values(V (&sums)[M][2], const float* weights, int64_t width, const float* values,
                          int64_t first, int64_t last) {
  if (first >= last) return;
  accumulate<M, 2>(sums, weights + first, width, 1, last - first, 0, values + first * kPanel);
}

// A tile of results, divided by their totals; `spans` count from the block's first key.
template <int M>
void mix(const float* weights, int64_t width, const float* values, const Span* spans,
         const float* totals, int64_t features, float* out, int64_t row) {
  Span common = {0, INT64_MAX};
  for (int m = 0; m < M; ++m) {
    if (spans[m].first == spans[m].last) continue;
    common = {std::max(common.first, spans[m].first), std::min(common.last, spans[m].last)};
  }
  common.last = std::max(common.last, common.first);
  if (common.last == INT64_MAX) common = {0, 0};
  V sums[M][2] = {};
  const auto alone = [&](int m, int64_t first, int64_t last) {
    V one[1][2] = {{sums[m][0], sums[m][1]}};
    add_values<1>(one, weights + m * width, width, values, first, last);
    sums[m][0] = one[0][0], sums[m][1] = one[0][1];
  };
  for (int m = 0; m < M; ++m) {
    alone(m, spans[m].first, std::min(common.first, spans[m].last));
  }
  V all[M][2];
  std::copy_n(&sums[0][0], 2 * M, &all[0][0]);
  add_values<M>(all, weights, width, values, common.first, common.last);
  std::copy_n(&all[0][0], 2 * M, &sums[0][0]);
  for (int m = 0; m < M; ++m) {
    alone(m, std::max(common.last, spans[m].first), spans[m].last);
    const bool none = spans[m].first == spans[m].last;
    for (int v = 0; v < 2; ++v) {
      const int64_t n = std::min<int64_t>(kLanes, features - v * kLanes);
      if (n <= 0) continue;
      const V y = none ? zero() : sums[m][v] / set(totals[m]);
      store_part(out + m * row + v * kLanes, y, static_cast<int>(n));
    }
  }
}

}  // namespace

int64_t attention_block() { return kQueries; }

int64_t attention_scratch_size(const Attention& p, int64_t keys) {
  return kQueries * (rounded_up(keys) + p.features) + rounded_up(keys) * p.features +
         keys * rounded_up(p.features);
}

void attention(const Attention& p, int64_t batch, int64_t head, int64_t frame_begin,
               int64_t frame_end, float* scratch) {
  const int64_t queries = frame_end - frame_begin, kv_head = head / (p.heads / p.kv_heads);
  Span spans[kQueries];
  for (int64_t i = 0; i < queries; ++i) spans[i] = span_of(p, frame_begin + i);
  const Span keys = keys_of(spans, queries);
  for (int64_t i = 0; i < queries; ++i) {
    if (spans[i].first == spans[i].last) continue;
    spans[i] = {spans[i].first - keys.first, spans[i].last - keys.first};
  }
  const int64_t count = keys.last - keys.first, width = rounded_up(count);
  float* scores = scratch;
  float* q = scores + kQueries * width;
  float* k = q + kQueries * p.features;
  float* v = k + width * p.features;
  for (int64_t i = 0; i < queries; ++i) {
    const float* x = p.q + batch * p.q_batch + (frame_begin + i) * p.q_frame + head * p.features;
    std::copy_n(x, p.features, q + i * p.features);
  }
  pack_keys(p, batch, kv_head, keys, k);
  pack_values(p, batch, kv_head, keys, v);
  float totals[kQueries];
  const int64_t row = p.heads * p.features;
  for (int64_t i = 0; i < queries; i += kRows) {
    with_rows(queries - i, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      float* of_tile = scores + i * width;
      scores_of<M>(p, q + i * p.features, k, keys_of(spans + i, M), width, of_tile);
      for (int m = 0; m < M; ++m) {
        const Span s = spans[i + m];
        totals[i + m] = exponentials(of_tile + m * width + s.first, s.last - s.first);
      }
      float* out = p.out + (batch * p.frames + frame_begin + i) * row + head * p.features;
      for (int64_t d = 0; d < p.features; d += kPanel) {
        mix<M>(of_tile, width, v + d * count, spans + i, totals + i, p.features - d, out + d, row);
      }
    });
  }
}

}  // namespace FASTCODEC_ISA_NS
