// The recurrent half of an LSTM, one step at a time: gates + W_hh h, then the cell.
//
// Hidden units are cut into blocks of one vector; a block owns its four gates, so it needs no other
// block's result of the same step. Packed weight: [block][k][gate][lane].
#include <algorithm>

#include "isa.h"
#include "tile.h"

namespace FASTCODEC_ISA_NS {
namespace {

using fastcodec::Lstm;

constexpr int kGates = 4;
constexpr int kBatchRows = kRows / 2;  // 4 vectors a row instead of 2

template <int M>
void step_rows(const Lstm& p, int64_t step, int64_t block, int64_t row) {
  const int64_t unit = block * kLanes, hidden = p.hidden;
  const int n = static_cast<int>(std::min<int64_t>(kLanes, hidden - unit));
  V sums[M][kGates];
  for (int m = 0; m < M; ++m) {
    const float* gates = p.gates + ((row + m) * p.frames + step) * kGates * hidden + unit;
    for (int g = 0; g < kGates; ++g) sums[m][g] = load_part(gates + g * hidden, n);
  }
  accumulate(sums, p.h[step % 2] + row * hidden, hidden, 1, hidden, 0,
             p.weight + block * hidden * kGates * kLanes);
  for (int m = 0; m < M; ++m) {
    const int64_t at = (row + m) * hidden + unit;
    const int64_t to = ((row + m) * p.frames + step) * hidden + unit;
    const V keep = sigmoid(sums[m][1]) * load_part(p.c + at, n);
    const V c = fma(sigmoid(sums[m][0]), tanh(sums[m][2]), keep);
    const V h = sigmoid(sums[m][3]) * tanh(c);
    store_part(p.c + at, c, n);
    store_part(p.h[(step + 1) % 2] + at, h, n);
    store_part(p.out + to, p.skip != nullptr ? h + load_part(p.skip + to, n) : h, n);
  }
}

}  // namespace

int64_t lstm_blocks(int64_t hidden) { return (hidden + kLanes - 1) / kLanes; }

int64_t lstm_packed_size(int64_t hidden) { return lstm_blocks(hidden) * hidden * kGates * kLanes; }

void lstm_pack(const float* weight, int64_t hidden, float* packed) {
  for (int64_t block = 0; block < lstm_blocks(hidden); ++block) {
    for (int64_t k = 0; k < hidden; ++k) {
      for (int64_t g = 0; g < kGates; ++g) {
        for (int64_t u = block * kLanes; u < (block + 1) * kLanes; ++u) {
          *packed++ = u < hidden ? weight[(g * hidden + u) * hidden + k] : 0.0f;
        }
      }
    }
  }
}

void lstm_step(const Lstm& p, int64_t step, int64_t block) {
  // Parts as even as can be: 8 rows are 4 + 4, which is faster than 6 + 2.
  const int64_t parts = (p.batch + kBatchRows - 1) / kBatchRows;
  const int64_t part = (p.batch + parts - 1) / parts;
  for (int64_t row = 0; row < p.batch; row += part) {
    with_rows<kBatchRows>(std::min(part, p.batch - row), [&](auto rows) {
      step_rows<decltype(rows)::value>(p, step, block, row);
    });
  }
}

}  // namespace FASTCODEC_ISA_NS
