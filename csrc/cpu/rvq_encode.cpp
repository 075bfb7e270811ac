// Residual vector quantisation: all stages of a block of rows in one call, the residual in cache.
//
// argmin |x - e|^2 = argmax x.e - |e|^2 / 2, the largest first where equal. Packed stage: panels of
// two vectors of code words, [panel][feature][lane], then -|e|^2 / 2 of every word (-inf: padding),
// then, where the processor has what it takes, the prefilter's 8-bit copy (rvq_prefilter.h).
#include <algorithm>
#include <limits>

#include "isa.h"
#include "rvq_prefilter.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::RvqEncode;

constexpr int kVectors = 2;
constexpr int64_t kPanel = kVectors * kLanes;
constexpr int64_t kBlock = 16 * kRows;  // rows that share one read of a stage's codebook

int64_t padded(int64_t codewords) { return (codewords + kPanel - 1) / kPanel * kPanel; }

struct Best {  // per lane of a row: the largest score so far and the number of its code word
  float score[kLanes];
  float word[kLanes];
};

template <int M>
void search_panel(const float* residual, int64_t features, const float* panel, const float* offset,
                  int64_t first_word, Best* best) {
  V sums[M][kVectors] = {};
  accumulate(sums, residual, features, 1, features, 0, panel);
  alignas(64) float lane[kLanes];
  for (int i = 0; i < kLanes; ++i) lane[i] = static_cast<float>(i);
  for (int m = 0; m < M; ++m) {
    V score = load(best[m].score), word = load(best[m].word);
    for (int v = 0; v < kVectors; ++v) {
      const V candidate = sums[m][v] + load(offset + v * kLanes);
      const V number = load(lane) + set(static_cast<float>(first_word + v * kLanes));
      word = select_gt(candidate, score, number, word);
      score = select_gt(candidate, score, candidate, score);
    }
    store(best[m].score, score);
    store(best[m].word, word);
  }
}

int64_t winner(const Best& best) {
  int top = 0;
  for (int i = 1; i < kLanes; ++i) {
    if (best.score[i] > best.score[top] ||
        (best.score[i] == best.score[top] && best.word[i] < best.word[top])) {
      top = i;
    }
  }
  return static_cast<int64_t>(best.word[top]);
}

// The nearest words of contiguous rows.
void search(const RvqEncode& p, const float* packed, const float* residual, int64_t rows,
            int64_t* found) {
  const int64_t words = padded(p.codewords), features = p.features;
  Best best[kBlock];
  for (int64_t r = 0; r < rows; ++r) {
    std::fill_n(best[r].score, kLanes, -std::numeric_limits<float>::infinity());
    std::fill_n(best[r].word, kLanes, 0.0f);
  }
  for (int64_t first = 0; first < words; first += kPanel) {
    for (int64_t r = 0; r < rows; r += kRows) {
      with_rows(rows - r, [&](auto count) {
        search_panel<decltype(count)::value>(residual + r * features, features,
                                             packed + first * features,
                                             packed + words * features + first, first, best + r);
      });
    }
  }
  for (int64_t r = 0; r < rows; ++r) found[r] = winner(best[r]);
}

#if defined(__AVX512F__)

// As floats: the rows' bytes, then their upper bounds, then rows that take the full search.
int64_t filter_scratch(int64_t codewords, int64_t features) {
  return kRows * ((features + 15) / 16 * 4 + padded(codewords)) + kBlock * features;
}

// Up to kRows rows by the prefilter; those it cannot decide are appended to `left`.
void filtered_tile(const RvqEncode& p, const float* packed, const Rounded& rounded,
                   const float* codebook, const float* residual, int64_t first_row, int64_t rows,
                   float* scratch, int64_t* found, int64_t* left, int64_t* left_count) {
  const int64_t words = padded(p.codewords), features = p.features;
  const float* offset = packed + words * features;
  const int64_t row_bytes = (features + 15) / 16 * 16;
  auto* bytes = reinterpret_cast<uint8_t*>(scratch);
  float* upper = scratch + kRows * row_bytes / 4;
  Bounds bounds;
  const float* tile[kRows];
  int64_t at[kRows], used = 0;
  for (int64_t r = first_row; r < first_row + rows; ++r) {
    const float* x = residual + r * features;
    if (!round_row(x, features, rounded, bytes + used * row_bytes, bounds.scale + used,
                   bounds.bound + used)) {
      left[(*left_count)++] = r;
      continue;
    }
    std::fill_n(bounds.below[used], kLanes, -std::numeric_limits<float>::infinity());
    tile[used] = x, at[used++] = r;
  }
  if (used == 0) return;
  for (int64_t first = 0; first < words; first += kPanel) {
    with_rows(used, [&](auto count) {
      bound_panel<decltype(count)::value>(bytes, row_bytes, features, rounded, offset, first,
                                          &bounds, upper, words);
    });
  }
  // Pairs of a row and one of its candidates; a row's are adjacent, in rising order.
  int32_t pair_word[kRows * kMostCandidates + 8];
  int32_t pair_row[kRows * kMostCandidates + 8];
  int64_t pairs = 0;
  for (int64_t i = 0; i < used; ++i) {
    const float least = _mm512_reduce_max_ps(load(bounds.below[i]));
    const int64_t count = candidates(upper + i * words, words, least, pair_word + pairs);
    for (int64_t c = 0; c < std::min(count, kMostCandidates); ++c) {  // read below, or subtracted
      const float* e = codebook + pair_word[pairs + c] * features;
      for (int64_t d = 0; d < features; d += kLanes) __builtin_prefetch(e + d);
    }
    if (count == 1) {
      found[at[i]] = pair_word[pairs];
    } else if (count > kMostCandidates) {
      left[(*left_count)++] = at[i];
    } else {
      for (int64_t c = 0; c < count; ++c) pair_row[pairs++] = static_cast<int32_t>(i);
    }
  }
  for (int64_t i = pairs; i < pairs + 8; ++i) pair_word[i] = pair_row[i] = 0;
  float score[8], best = 0;
  for (int64_t i = 0; i < pairs; ++i) {
    if (i % 8 == 0) {
      const float *x[8], *e[8];
      for (int j = 0; j < 8; ++j) {
        x[j] = tile[pair_row[i + j]], e[j] = codebook + pair_word[i + j] * features;
      }
      eight_dots(x, e, features, score);
    }
    const float now = score[i % 8] + offset[pair_word[i]];
    if (i == 0 || pair_row[i] != pair_row[i - 1] || now > best) {
      best = now;
      found[at[pair_row[i]]] = pair_word[i];
    }
  }
}

bool search_filtered(const RvqEncode& p, const float* packed, const float* codebook,
                     const float* residual, int64_t rows, float* scratch, int64_t* found) {
  const int64_t words = padded(p.codewords), features = p.features;
  if (!has_prefilter(features)) return false;
  const Rounded rounded(packed + words * (features + 1), words, features);
  if (!rounded.usable()) return false;
  int64_t left[kBlock], left_count = 0, left_found[kBlock];
  for (int64_t r = 0; r < rows; r += kRows) {
    filtered_tile(p, packed, rounded, codebook, residual, r, std::min<int64_t>(kRows, rows - r),
                  scratch, found, left, &left_count);
  }
  if (left_count == 0) return true;
  float* again = scratch + filter_scratch(p.codewords, features) - kBlock * features;
  for (int64_t i = 0; i < left_count; ++i) {
    const float* x = residual + left[i] * features;
    std::copy(x, x + features, again + i * features);
  }
  search(p, packed, again, left_count, left_found);
  for (int64_t i = 0; i < left_count; ++i) found[left[i]] = left_found[i];
  return true;
}

#else

constexpr bool has_prefilter(int64_t) { return false; }
int64_t rounded_size(int64_t, int64_t) { return 0; }
int64_t filter_scratch(int64_t, int64_t) { return 0; }
void round_words(const float*, int64_t, int64_t, int64_t, float*) {}
bool search_filtered(const RvqEncode&, const float*, const float*, const float*, int64_t, float*,
                     int64_t*) {
  return false;
}

#endif

int64_t packed_size(int64_t codewords, int64_t features) {
  const int64_t words = padded(codewords);
  return words * (features + 1) + (has_prefilter(features) ? rounded_size(words, features) : 0);
}

void encode_block(const RvqEncode& p, int64_t row_begin, int64_t rows, float* scratch) {
  const int64_t features = p.features;
  float* residual = scratch;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row_begin + r;
    const float* x = p.x + row / p.frames * p.x_batch + row % p.frames * p.x_frame;
    std::copy(x, x + features, residual + r * features);
  }
  int64_t found[kBlock];
  for (int64_t stage = 0; stage < p.stages; ++stage) {
    const float* packed = p.packed + stage * packed_size(p.codewords, features);
    const float* codebook = p.codebooks + stage * p.codewords * features;
    if (!search_filtered(p, packed, codebook, residual, rows, residual + rows * features, found)) {
      search(p, packed, residual, rows, found);
    }
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = row_begin + r;
      p.codes[(row / p.frames * p.stages + stage) * p.frames + row % p.frames] = found[r];
      const float* e = codebook + found[r] * features;
      for (int64_t d = 0; d < features; ++d) residual[r * features + d] -= e[d];
    }
  }
}

}  // namespace

int64_t rvq_packed_size(int64_t codewords, int64_t features) {
  return packed_size(codewords, features);
}

void rvq_pack(const float* codebook, int64_t codewords, int64_t features, float* packed) {
  const int64_t words = padded(codewords);
  for (int64_t n = 0; n < words; ++n) {
    double norm = 0;
    for (int64_t d = 0; d < features; ++d) {
      const float e = n < codewords ? codebook[n * features + d] : 0.0f;
      packed[(n / kPanel * features + d) * kPanel + n % kPanel] = e;
      norm += static_cast<double>(e) * e;
    }
    packed[words * features + n] =
        n < codewords ? static_cast<float>(-0.5 * norm) : -std::numeric_limits<float>::infinity();
  }
  if (has_prefilter(features)) {
    round_words(codebook, codewords, words, features, packed + words * (features + 1));
  }
}

int64_t rvq_scratch_size(int64_t rows, int64_t codewords, int64_t features) {
  return std::min(rows, kBlock) * features + filter_scratch(codewords, features);
}

void rvq_encode(const RvqEncode& p, int64_t row_begin, int64_t row_end, float* scratch) {
  for (int64_t row = row_begin; row < row_end; row += kBlock) {
    encode_block(p, row, std::min(kBlock, row_end - row), scratch);
  }
}

}  // namespace FASTCODEC_ISA_NS
