// A layer of an LSTM: the input product W_ih x + b of all frames, and the recurrence, one step at a
// time: gates + W_hh h, then the cell.
//
// Hidden units are cut into blocks of one vector; a block owns its four gates, so it needs no other
// block's result of the same step. A sum takes a word of its operand after the other: a float, or
// two bfloat16 neighbours (medium). Packed weights: W_ih [panel][word][2][lane], a panel being the
// first or the last two gates of a block, then W_hh [block][word][gate][lane].
#include <algorithm>

#include "isa.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {

void lstm_round(const float* x, int64_t rows, int64_t hidden, bool medium, float* words);

namespace {

using fastcodec::Lstm;
using fastcodec::LstmSizes;

constexpr int kGates = 4;
constexpr int kBatchRows = kRows / 2;  // 4 vectors a row instead of 2
constexpr int kPanel = 2;              // vectors

// What a word adds to a sum: Floats, or a pair.
#if defined(__AVX512BF16__)
using PairWord = Pairs;
#else
#if defined(__AVX512F__)
FC_INLINE V high_half(V x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
FC_INLINE V low_half(V x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(x), 16));
}
#else
FC_INLINE V high_half(V x) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
FC_INLINE V low_half(V x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x), 16));
}
#endif
struct PairWord {  // as VDPBF16PS, which takes the odd one first
  FC_INLINE V add(V x, V weight, V sum) {
    return fma(low_half(x), low_half(weight), fma(high_half(x), high_half(weight), sum));
  }
};
#endif

// VDPBF16PS takes subnormal numbers for zero and gives zero for them; inside this scope so does
// everything else.
class NoSubnormals {
 public:
  explicit NoSubnormals(bool wanted) : before_(_mm_getcsr()) {
    if (wanted) _mm_setcsr(before_ | 0x8040);
  }
  ~NoSubnormals() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
};

int64_t words_of(int64_t hidden, bool medium) { return medium ? (hidden + 1) / 2 : hidden; }
int64_t blocks_of(int64_t hidden) { return (hidden + kLanes - 1) / kLanes; }
int64_t weights_size(const Lstm& p) {
  return blocks_of(p.hidden) * words_of(p.hidden, p.medium) * kGates * kLanes;
}

template <int M, int NV>
FC_INLINE void load_sums(V (&sums)[M][NV], const float* from, int64_t row) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) sums[m][v] = load(from + m * row + v * kLanes);
  }
}

template <int M, int NV>
FC_INLINE void store_sums(const V (&sums)[M][NV], float* to, int64_t row) {
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) store(to + m * row + v * kLanes, sums[m][v]);
  }
}

// The cell of M rows of a block, from the finished sums.
template <int M>
FC_INLINE void cells(const Lstm& p, int64_t step, int64_t block, int64_t row,
                     const V (&sums)[M][kGates]) {
  const int64_t unit = block * kLanes, hidden = p.hidden;
  const int n = static_cast<int>(std::min<int64_t>(kLanes, hidden - unit));
  for (int m = 0; m < M; ++m) {
    const int64_t at = (row + m) * hidden + unit;
    const int64_t to = ((row + m) * p.frames + step) * hidden + unit;
    const V keep = sigmoid(sums[m][1]) * load_part(p.c + at, n);
    const V c = fma(sigmoid(sums[m][0]), tanh(sums[m][2]), keep);
    const V h = sigmoid(sums[m][3]) * tanh(c);
    store_part(p.c + at, c, n);
    store_part(p.h + at, h, n);
    store_part(p.out + to, p.skip != nullptr ? h + load_part(p.skip + to, n) : h, n);
    float* next = p.operand[(step + 1) % 2] + (row + m) * words_of(hidden, p.medium);
    if (p.medium) {
      lstm_round(p.h + at, 1, n, true, next + unit / 2);
    } else {
      store_part(next + unit, h, n);
    }
  }
}

template <typename Word, int M>
void step_rows(const Lstm& p, int64_t step, int64_t block, int64_t row) {
  const int64_t words = words_of(p.hidden, p.medium), gates_row = p.blocks * kGates * kLanes;
  V sums[M][kGates];
  load_sums(sums, p.gates + (row * p.frames + step) * gates_row + block * kGates * kLanes,
            p.frames * gates_row);
  accumulate<M, kGates, Word>(sums, p.operand[step % 2] + row * words, words, 1, words, 0,
                              p.weight + weights_size(p) + block * words * kGates * kLanes);
  cells(p, step, block, row, sums);
}

template <typename Word>
void step_block(const Lstm& p, int64_t step, int64_t block) {
  // Parts as even as can be: 8 rows are 4 + 4, which is faster than 6 + 2.
  const int64_t parts = (p.batch + kBatchRows - 1) / kBatchRows;
  const int64_t part = (p.batch + parts - 1) / parts;
  for (int64_t row = 0; row < p.batch; row += part) {
    with_rows<kBatchRows>(std::min(part, p.batch - row), [&](auto rows) {
      step_rows<Word, decltype(rows)::value>(p, step, block, row);
    });
  }
}

template <typename Word>
void input_panel(const Lstm& p, int64_t row_begin, int64_t row_end, int64_t panel) {
  const int64_t words = words_of(p.hidden, p.medium), gates_row = p.blocks * kGates * kLanes;
  for (int64_t row = row_begin; row < row_end; row += kRows) {
    with_rows(row_end - row, [&](auto rows) {
      constexpr int M = decltype(rows)::value;
      V sums[M][kPanel];
      load_sums(sums, p.bias + panel * kPanel * kLanes, 0);
      accumulate<M, kPanel, Word>(sums, p.x + row * words, words, 1, words, 0,
                                  p.weight + panel * words * kPanel * kLanes);
      store_sums(sums, p.gates + row * gates_row + panel * kPanel * kLanes, gates_row);
    });
  }
}

// [group of `vectors` gates][word][vector][lane]
void pack(const float* weight, int64_t hidden, bool medium, int vectors, float* packed) {
  const auto at = [&](int64_t gate, int64_t unit, int64_t k) {
    return unit < hidden && k < hidden ? weight[(gate * hidden + unit) * hidden + k] : 0.0f;
  };
  for (int64_t first = 0; first < blocks_of(hidden) * kGates; first += vectors) {
    for (int64_t word = 0; word < words_of(hidden, medium); ++word) {
      for (int64_t i = first; i < first + vectors; ++i) {
        for (int64_t u = i / kGates * kLanes; u < (i / kGates + 1) * kLanes; ++u, ++packed) {
          if (medium) {
            const float pair[2] = {at(i % kGates, u, 2 * word), at(i % kGates, u, 2 * word + 1)};
            lstm_round(pair, 1, 2, true, packed);
          } else {
            *packed = at(i % kGates, u, word);
          }
        }
      }
    }
  }
}

}  // namespace

LstmSizes lstm_sizes(int64_t hidden, bool medium) {
  const int64_t blocks = blocks_of(hidden), words = words_of(hidden, medium);
  const int64_t row = blocks * kGates * kLanes;
  return {blocks, words, row, row / (kPanel * kLanes), 2 * row * words};
}

void lstm_pack(const float* weight_ih, const float* weight_hh, int64_t hidden, bool medium,
               float* packed) {
  pack(weight_ih, hidden, medium, kPanel, packed);
  pack(weight_hh, hidden, medium, kGates, packed + lstm_sizes(hidden, medium).packed / 2);
}

void lstm_bias(const float* bias_ih, const float* bias_hh, int64_t hidden, float* bias) {
  for (int64_t i = 0; i < blocks_of(hidden) * kGates; ++i) {
    for (int64_t u = i / kGates * kLanes; u < (i / kGates + 1) * kLanes; ++u) {
      const int64_t at = i % kGates * hidden + u;
      *bias++ = u < hidden ? bias_ih[at] + bias_hh[at] : 0.0f;
    }
  }
}

void lstm_round(const float* x, int64_t rows, int64_t hidden, bool medium, float* words) {
  if (!medium) {
    std::copy(x, x + rows * hidden, words);
    return;
  }
  for (int64_t row = 0; row < rows; ++row, x += hidden, words += words_of(hidden, true)) {
    uint16_t halves[2 * kLanes];
    for (int64_t i = 0; i < hidden; i += 2 * kLanes) {
      const int64_t n = std::min<int64_t>(2 * kLanes, hidden - i);
      for (int64_t j = 0; j < n; ++j) halves[j] = to_bfloat16(as_bits(x[i + j])) >> 16;
      if (n % 2 == 1) halves[n] = 0;
      std::memcpy(words + i / 2, halves, (n + 1) / 2 * sizeof(float));
    }
  }
}

void lstm_inputs(const Lstm& p, int64_t row_begin, int64_t row_end, int64_t panel_begin,
                 int64_t panel_end) {
  const NoSubnormals scope(p.medium);
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    (p.medium ? input_panel<PairWord> : input_panel<Floats>)(p, row_begin, row_end, panel);
  }
}

void lstm_step(const Lstm& p, int64_t step, int64_t block) {
  const NoSubnormals scope(p.medium);
  (p.medium ? step_block<PairWord> : step_block<Floats>)(p, step, block);
}

}  // namespace FASTCODEC_ISA_NS
