// Residual vector quantisation: all stages of a block of rows in one call, the residual in cache.
//
// argmin |x - e|^2 = argmax x.e - |e|^2 / 2, the largest first where equal. Packed stage: panels of
// two vectors of code words, [panel][feature][lane], then -|e|^2 / 2 of every word (-inf: padding).
#include <algorithm>
#include <limits>

#include "isa.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::RvqEncode;

constexpr int kVectors = 2;
constexpr int64_t kPanel = kVectors * kLanes;
constexpr int64_t kBlock = 4 * kRows;  // rows that share one read of a stage's codebook

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

void encode_block(const RvqEncode& p, int64_t row_begin, int64_t rows, float* residual) {
  const int64_t words = padded(p.codewords), features = p.features;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t row = row_begin + r;
    const float* x = p.x + row / p.frames * p.x_batch + row % p.frames * p.x_frame;
    std::copy(x, x + features, residual + r * features);
  }
  Best best[kBlock];
  for (int64_t stage = 0; stage < p.stages; ++stage) {
    const float* packed = p.packed + stage * words * (features + 1);
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
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t row = row_begin + r, word = winner(best[r]);
      p.codes[(row / p.frames * p.stages + stage) * p.frames + row % p.frames] = word;
      const float* e = p.codebooks + (stage * p.codewords + word) * features;
      for (int64_t d = 0; d < features; ++d) residual[r * features + d] -= e[d];
    }
  }
}

}  // namespace

int64_t rvq_packed_size(int64_t codewords, int64_t features) {
  return padded(codewords) * (features + 1);
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
}

int64_t rvq_scratch_size(int64_t rows, int64_t features) {
  return std::min(rows, kBlock) * features;
}

void rvq_encode(const RvqEncode& p, int64_t row_begin, int64_t row_end, float* scratch) {
  for (int64_t row = row_begin; row < row_end; row += kBlock) {
    encode_block(p, row, std::min(kBlock, row_end - row), scratch);
  }
}

}  // namespace FASTCODEC_ISA_NS
